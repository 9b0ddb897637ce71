// Fibers: threads that take turns within one thread of the operating system, each with a stack of its own, for tests. A
// turn ends where a fiber waits for others. To the thread sanitizer, a switch orders no memory; release and acquire do.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// Of the scheduler, which the fibers share without synchronisation.
#define NOT_SANITIZED __attribute__((no_sanitize("thread"), noinline))

namespace fibers {

struct Fiber {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context{};
#endif
    std::unique_ptr<char[]> stack;
    void* sanitizer = nullptr;
    bool done = false;
};

struct Scheduler {
    Fiber* fibers = nullptr;
    std::size_t count = 0, current = 0;
    Fiber host;
    const std::function<void()>* body = nullptr;
    std::uint64_t progress = 0;
};

inline Scheduler scheduler;

// What a fiber wrote before release(address) is seen by those that acquire(address) later.
inline void release([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(address);
#endif
}

inline void acquire([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(address);
#endif
}

#if defined(__x86_64__)
// Saves what a function call preserves, and goes on with the other stack.
extern "C" void deltarnn_switch_stack(void** from, void* to);
asm(R"(
.text
.weak deltarnn_switch_stack
.type deltarnn_switch_stack, @function
deltarnn_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

NOT_SANITIZED inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.sanitizer, 1);  // without ordering memory
#endif
#if defined(__x86_64__)
    deltarnn_switch_stack(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
}

// Number of the fiber whose turn it is.
NOT_SANITIZED inline std::size_t current() { return scheduler.current; }
NOT_SANITIZED inline std::size_t count() { return scheduler.count; }

// Something happened that another fiber may be waiting for.
NOT_SANITIZED inline void note_progress() { ++scheduler.progress; }

// The others' turn. All of them waiting without progress is a barrier that some fiber never reaches.
NOT_SANITIZED inline void yield() {
    static std::uint64_t seen = 0, turns = 0;
    if (scheduler.progress != seen) {
        seen = scheduler.progress;
        turns = 0;
    } else if (++turns > 4 * scheduler.count + 1000) {
        std::fputs("deadlock: a barrier that not all threads reach\n", stderr);
        std::abort();
    }
    Fiber& from = scheduler.fibers[scheduler.current];
    std::size_t next = scheduler.current;
    do next = next + 1 == scheduler.count ? 0 : next + 1;
    while (scheduler.fibers[next].done && next != scheduler.current);
    if (next == scheduler.current) {
        if (from.done) switch_fiber(from, scheduler.host);
        return;
    }
    scheduler.current = next;
    switch_fiber(from, scheduler.fibers[next]);
}

struct Barrier {
    std::size_t arrived = 0, generation = 0;
};

// Until `count` fibers have come; memory stays unordered.
NOT_SANITIZED inline void wait(Barrier& barrier, std::size_t count) {
    const std::size_t generation = barrier.generation;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        ++barrier.generation;
        note_progress();
    }
    while (barrier.generation == generation) yield();
}

inline void synchronize(Barrier& barrier, std::size_t count) {
    release(&barrier);
    wait(barrier, count);
    acquire(&barrier);
}

NOT_SANITIZED inline void run_body() {
    (*scheduler.body)();
    release(&scheduler);
    scheduler.fibers[scheduler.current].done = true;
    note_progress();
    yield();
    std::abort();
}

inline void prepare(Fiber& fiber) {
    constexpr std::size_t size = 1 << 16;
    fiber.stack = std::make_unique_for_overwrite<char[]>(size);
#if defined(__SANITIZE_THREAD__)
    fiber.sanitizer = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
    auto top = reinterpret_cast<std::uintptr_t>(fiber.stack.get() + size) & ~std::uintptr_t{15};
    auto* frame = reinterpret_cast<void**>(top) - 8;
    std::memset(frame, 0, 8 * sizeof(void*));
    frame[6] = reinterpret_cast<void*>(&run_body);  // returned to, after six registers
    fiber.stack_pointer = frame;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = size;
    makecontext(&fiber.context, run_body, 0);
#endif
}

// Runs body() in each of `count` fibers, until all have ended.
inline void run(std::size_t count, const std::function<void()>& body) {
    std::vector<Fiber> fibers(count);
    for (Fiber& fiber : fibers) prepare(fiber);
    scheduler.fibers = fibers.data();
    scheduler.count = count;
    scheduler.current = 0;
    scheduler.body = &body;
#if defined(__SANITIZE_THREAD__)
    scheduler.host.sanitizer = __tsan_get_current_fiber();
#endif
    switch_fiber(scheduler.host, fibers[0]);
    acquire(&scheduler);
#if defined(__SANITIZE_THREAD__)
    for (Fiber& fiber : fibers) __tsan_destroy_fiber(fiber.sanitizer);
#endif
}

}  // namespace fibers
