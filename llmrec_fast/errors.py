"""Every exception the package raises.

One base class, so that a service can catch `LLMRecError` at its edge; each child also derives from the built-in that
callers of such functions already catch. A message says what was given, what was expected and what to do.
"""

from __future__ import annotations


class LLMRecError(Exception):
    """Base class of all errors raised by llmrec_fast."""


class InvalidInput(LLMRecError, ValueError):
    """An argument has the wrong type, shape, range or content. Nothing was changed."""


class UnknownId(InvalidInput, KeyError):
    """An id that was asked for is not known. Nothing was changed."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return Exception.__str__(self)


class MissingDependency(LLMRecError, ImportError):
    """An optional package is needed; the message names the pip command that installs it."""


class DeviceUnavailable(LLMRecError, RuntimeError):
    """A device was asked for by name and cannot be used; the message says what is missing."""


class CudaError(LLMRecError, RuntimeError):
    """The CUDA runtime reported an error; the message names the source line, the call and the error."""


class CorruptFile(LLMRecError, OSError):
    """A file is truncated, damaged or not what its checksum says; the message names the file."""


class LogWriteFailed(LLMRecError, OSError):
    """A change could not be written to the log (a full disk, for instance) and was refused; nothing was changed."""


class FetchFailed(LLMRecError, OSError):
    """A model or data set could not be fetched from any source; the message says what was tried and what to run."""


class NotFitted(LLMRecError, RuntimeError):
    """An answer was asked of something that has not learned yet: call `fit` first."""


class Overloaded(LLMRecError, RuntimeError):
    """More work waits than the caller allowed; this call was not taken. Try again later, or shed load."""
