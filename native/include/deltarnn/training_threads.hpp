// Threads of the training kernels.
#pragma once
#include <functional>

namespace deltarnn {

// Calls work(0), …, work(threads − 1), each once, and returns when all are done. The caller takes part; the others are
// threads of torch's OpenMP runtime where it is loaded, else threads of our own that stay for the next call. If they
// are busy with another caller's work, this caller does all of its own. Safe to use after fork().
void parallel(int threads, const std::function<void(int)>& work);

}  // namespace deltarnn
