// The launchers of `pool` and `fuse`: they check, and launch on `stream`; they never allocate or wait.
#pragma once

#include "fuse.h"
#include "launch.h"
#include "pool.h"

namespace llmrec {

// How many bytes `pool` needs beside its arguments: few segments are cut in pieces that are reduced side by side, so
// that the device has enough to do. Depends on sizes only, never on the device, and so do the results.
size_t pool_workspace_bytes(int64_t segments, int64_t positions, int64_t columns, PoolMode mode);

// `workspace` is aligned to 16 bytes; calls that may overlap on the device need one each.
Status pool(const PoolArguments& arguments, void* workspace, size_t workspace_bytes, cudaStream_t stream);

Status fuse(const FuseArguments& arguments, cudaStream_t stream);

}  // namespace llmrec
