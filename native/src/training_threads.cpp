#include "deltarnn/training_threads.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace deltarnn {
namespace {

// How often an idle thread polls before it sleeps: a call within some microseconds of the last finds it awake.
constexpr int spins = 4000;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Waits until `value` is no longer `old`; returns what it is then.
unsigned await_change(const std::atomic<unsigned>& value, unsigned old) {
    for (int i = 0; i < spins; ++i) {
        const unsigned now = value.load(std::memory_order_acquire);
        if (now != old) return now;
        relax();
    }
    value.wait(old, std::memory_order_acquire);
    return value.load(std::memory_order_acquire);
}

class Pool {
  public:
    void run(int threads, const std::function<void(int)>& work) {
        while (static_cast<int>(workers_.size()) < threads - 1) add_worker();
        work_ = &work;
        std::exception_ptr failure;
        pending_.store(static_cast<unsigned>(threads - 1), std::memory_order_relaxed);
        for (int i = 0; i < threads - 1; ++i) {
            workers_[static_cast<std::size_t>(i)]->turn.fetch_add(1, std::memory_order_release);
            workers_[static_cast<std::size_t>(i)]->turn.notify_one();
        }
        try {
            work(0);
        } catch (...) {
            failure = std::current_exception();
        }
        for (unsigned left = pending_.load(std::memory_order_acquire); left != 0;) left = await_change(pending_, left);
        if (failure == nullptr) failure = std::exchange(failure_, nullptr);
        if (failure != nullptr) std::rethrow_exception(failure);
    }

    std::mutex in_use;

  private:
    struct Worker {
        std::atomic<unsigned> turn{0};
    };

    void add_worker() {
        workers_.push_back(std::make_unique<Worker>());
        Worker* worker = workers_.back().get();
        const int index = static_cast<int>(workers_.size());
        try {
            std::thread([this, worker, index] { serve(*worker, index); }).detach();
        } catch (...) {
            workers_.pop_back();  // nobody serves it
            throw;
        }
    }

    void serve(Worker& worker, int index) {
        for (unsigned turn = 0;;) {
            turn = await_change(worker.turn, turn);
            try {
                (*work_)(index);
            } catch (...) {
                const std::lock_guard lock(failure_lock_);
                failure_ = std::current_exception();
            }
            if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
        }
    }

    std::vector<std::unique_ptr<Worker>> workers_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<unsigned> pending_{0};
    std::mutex failure_lock_;
    std::exception_ptr failure_;
};

// The OpenMP runtime that torch has loaded, if it has. Its idle threads spin for milliseconds after each of torch's own
// operations; a second set of threads would compete with them for the cores, so the same ones are used.
class SharedOpenMP {
  public:
    // False if there is no such runtime, or this is a child of fork(), in which its threads no longer exist.
    static bool run(int threads, const std::function<void(int)>& work) {
        using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
        static const auto parallel_region = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        if (parallel_region == nullptr || !registered_ || forked_.load()) return false;
        Region region{work, threads, 0, {}, nullptr};
        parallel_region(&SharedOpenMP::serve, &region, static_cast<unsigned>(threads), 0);
        if (region.failure != nullptr) std::rethrow_exception(region.failure);
        return true;
    }

  private:
    struct Region {
        const std::function<void(int)>& work;
        int threads;
        std::atomic<int> next;
        std::mutex failure_lock;
        std::exception_ptr failure;
    };

    // The runtime may grant fewer threads than asked for: each takes shares until none is left.
    static void serve(void* data) {
        auto& region = *static_cast<Region*>(data);
        for (int i; (i = region.next.fetch_add(1)) < region.threads;) {
            try {
                region.work(i);
            } catch (...) {
                const std::lock_guard lock(region.failure_lock);
                region.failure = std::current_exception();
            }
        }
    }

    inline static std::atomic<bool> forked_{false};
    // From when this library is loaded on: torch may have started the threads before the first call of ours.
    inline static const bool registered_ = pthread_atfork(nullptr, nullptr, [] { forked_.store(true); }) == 0;
};

// Never destroyed: its threads may outlive static destruction. A child of fork() has none of the threads, and gets a
// new pool.
std::atomic<Pool*> shared_pool{nullptr};

Pool& pool() {
    static const bool registered = pthread_atfork(nullptr, nullptr, [] { shared_pool.store(nullptr); }) == 0;
    (void)registered;
    Pool* current = shared_pool.load(std::memory_order_acquire);
    if (current == nullptr) {
        auto fresh = std::make_unique<Pool>();
        if (shared_pool.compare_exchange_strong(current, fresh.get())) current = fresh.release();
    }
    return *current;
}

}  // namespace

void parallel(int threads, const std::function<void(int)>& work) {
    if (threads > 1) {
        if (SharedOpenMP::run(threads, work)) return;
        Pool& shared = pool();
        const std::unique_lock lock(shared.in_use, std::try_to_lock);
        if (lock.owns_lock()) return shared.run(threads, work);
    }
    for (int i = 0; i < threads; ++i) work(i);
}

}  // namespace deltarnn
