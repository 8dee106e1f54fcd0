// Arithmetic in a chosen rounding mode, for the intrinsics with _ru and _rd in their names. Compiled with
// -frounding-math; volatile keeps every operation between the two changes of mode.
#include <cfenv>
#include <cmath>

namespace simt {

extern const int kNearest = FE_TONEAREST, kUp = FE_UPWARD, kDown = FE_DOWNWARD, kZero = FE_TOWARDZERO;

namespace {
struct Mode {
  explicit Mode(int mode) : before(std::fegetround()) { std::fesetround(mode); }
  ~Mode() { std::fesetround(before); }
  int before;
};

template <class Real>
Real sum(volatile Real a, volatile Real b, int mode) {
  Mode set(mode);
  volatile Real result = a + b;
  return result;
}
template <class Real>
Real product(volatile Real a, volatile Real b, int mode) {
  Mode set(mode);
  volatile Real result = a * b;
  return result;
}
template <class Real>
Real fused(volatile Real a, volatile Real b, volatile Real c, int mode) {
  Mode set(mode);
  volatile Real result = std::fma(Real(a), Real(b), Real(c));
  return result;
}
}  // namespace

float add(float a, float b, int mode) { return sum(a, b, mode); }
double add(double a, double b, int mode) { return sum(a, b, mode); }
float multiply(float a, float b, int mode) { return product(a, b, mode); }
double multiply(double a, double b, int mode) { return product(a, b, mode); }
float fuse(float a, float b, float c, int mode) { return fused(a, b, c, mode); }
double fuse(double a, double b, double c, int mode) { return fused(a, b, c, mode); }

float root(float a, int mode) {
  Mode set(mode);
  volatile float input = a;
  volatile float result = std::sqrt(float(input));
  return result;
}

float narrow(double a, int mode) {
  Mode set(mode);
  volatile double input = a;
  volatile float result = static_cast<float>(input);
  return result;
}

}  // namespace simt
