// A guard of states that one thread at a time may use.
#pragma once
#include <atomic>
#include <stdexcept>
#include <string>

// Without a lock: a second thread is told so.
class InUse {
  public:
    // remedy: what the message advises.
    InUse(std::atomic_flag& flag, const char* remedy) : flag_(flag) {
        if (flag_.test_and_set(std::memory_order_acquire)) {
            throw std::runtime_error(
                std::string("this stream is in use in another thread: give each thread its own, ") + remedy);
        }
    }
    InUse(const InUse&) = delete;
    ~InUse() { flag_.clear(std::memory_order_release); }

  private:
    std::atomic_flag& flag_;
};
