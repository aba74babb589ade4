// Work on several CPU threads whose result does not depend on how many there are.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace cambium::kernels {

/// Threads used by the calling thread's parallel_for from now on, at least 1; 0 asks for the default: CPUs allowed to this process.
void set_threads(int count);
int threads();

namespace detail {
void run_tasks(std::int64_t tasks, void (*call)(void* body, std::int64_t task), void* body);
}

/// Calls `body(task)` once for every task in [0, tasks), on whichever thread is free. The caller cuts its work by shape alone, tasks
/// write to disjoint places, and sums over tasks are made afterwards in the order of the tasks: that is what makes results equal for any
/// number of threads. Nested calls run on the calling thread. An exception of a task reaches the caller after all have ended.
template <class F>
void parallel_for(std::int64_t tasks, F&& body) {
  if (tasks <= 0) return;
  using Body = std::remove_reference_t<F>;
  detail::run_tasks(tasks, [](void* b, std::int64_t task) { (*static_cast<Body*>(b))(task); }, const_cast<std::remove_const_t<Body>*>(std::addressof(body)));
}

/// Cuts [0, count) into ranges of `grain` and calls `body(begin, end)` for each. The cut depends on `count` and `grain` only.
template <class F>
void parallel_ranges(std::int64_t count, std::int64_t grain, F&& body) {
  const std::int64_t tasks = (count + grain - 1) / grain;
  parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t begin = task * grain, end = begin + grain < count ? begin + grain : count;
    body(begin, end);
  });
}

}  // namespace cambium::kernels
