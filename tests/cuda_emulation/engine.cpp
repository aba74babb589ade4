// Runs the blocks of a grid one after another, the threads of a block as fibres that take turns at barriers and warp operations.
// Built without sanitizers: its own memory must not look like the kernel's.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "block.h"
#include "watchdog.h"

namespace kemu {

Block block;
Thread* current = nullptr;

namespace {

// Under ThreadSanitizer two sets take turns, so that neighbouring blocks do not look ordered by having run on the same fibres.
constexpr int kSets = KEMU_THREAD_SANITIZER ? 2 : 1;
std::vector<std::unique_ptr<Fiber>> fibers[kSets];

void switch_to(Fiber* from, Fiber* to) {
  current = to;
  switch_context(from != nullptr ? from->context : block.host, to->context);
}

void back_to_host(Fiber* from) {
  current = nullptr;
  order_release(&block.done_order);
  switch_context(from->context, block.host);
}

// Forward and reverse let one warp run as far as it can before another gets a turn: what a missing barrier survives least.
Fiber* pick() {
  Block& b = block;
  if (settings().order == Order::random) {
    b.position = static_cast<unsigned>(b.random() % b.n);
  } else {
    const unsigned first = b.position / kLanes * kLanes, end = std::min(b.n, first + kLanes);
    for (unsigned i = first, p = b.position; i < end; ++i) {
      if (++p >= end) p = first;
      Fiber* fiber = b.fibers[b.order[p]];
      if (fiber->state == State::ready) {
        b.position = p;
        return fiber;
      }
    }
  }
  for (unsigned i = 0; i < b.n; ++i) {
    if (++b.position >= b.n) b.position = 0;
    Fiber* fiber = b.fibers[b.order[b.position]];
    if (fiber->state == State::ready) return fiber;
  }
  return nullptr;
}

void set_message(const char* text) {
  std::size_t length = 0;
  while (text[length] != 0 && length + 1 < sizeof block.error) ++length;
  raw_copy(block.error, text, length);
  block.error[length] = 0;
  block.failed = true;
}

void report_deadlock() {
  char text[1024];
  int used = std::snprintf(text, sizeof text, "deadlock: no thread can run");
  int shown = 0;
  for (unsigned i = 0; i < block.n && shown < 4; ++i) {
    const Fiber* f = block.fibers[i];
    if (f->state == State::done) continue;
    ++shown;
    used += std::snprintf(text + used, sizeof text - static_cast<std::size_t>(used), "; thread %u (warp %u, lane %u) waits at %.120s:%d for %s, mask %08x", f->linear, f->warp,
                          f->lane, f->file, f->line, f->state == State::at_barrier ? "__syncthreads" : "a warp operation", f->mask);
  }
  set_message(text);
}

void release_barrier() {
  block.arrived = 0;
  block.barrier_file = nullptr;
  block.parity ^= 1U;
  for (unsigned i = 0; i < block.n; ++i)
    if (block.fibers[i]->state == State::at_barrier) block.fibers[i]->state = State::ready;
}

void finish_thread(Fiber* fiber) {
  if (fiber->n_copies != 0) stop_with("a thread ended with cp.async copies that it never waited for");
  fiber->state = State::done;
  ++block.done;
  Warp& warp = block.warps[fiber->warp];
  warp.exited |= 1U << fiber->lane;
  complete_meetings(warp, fiber->warp);
  if (block.arrived != 0 && block.arrived == block.n - block.done) {
    if (settings().strict) {
      char text[512];
      std::snprintf(text, sizeof text, "__syncthreads at %.300s:%d was not reached by thread %u, which has exited", block.barrier_file, block.barrier_line, fiber->linear);
      stop_with(text);
    }
    release_barrier();
  }
}

void fiber_main() {
  arrived();
  for (;;) {
    Fiber* fiber = me();
    order_acquire(&block.launch_order);
    (*block.body)();
    order_release(&block.done_order);
    finish_thread(fiber);
    yield_from(fiber);
  }
}

void begin_block(dim3 grid, dim3 threads, std::uint64_t index, std::uint64_t turn) {
  Block& b = block;
  const uint3 block_index{static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y), static_cast<unsigned>(index / grid.x / grid.y)};
  const auto& set = fibers[turn % kSets];
  // Each block begins at another fibre, so that the same threads of two blocks are different ones for ThreadSanitizer.
  const unsigned rotation = KEMU_THREAD_SANITIZER ? static_cast<unsigned>(turn / kSets % b.n) : 0;
  for (unsigned i = 0; i < b.n; ++i) {
    Fiber* f = set[(i + rotation) % b.n].get();
    b.fibers[i] = f;
    f->linear = i;
    f->lane = i % kLanes;
    f->warp = i / kLanes;
    f->thread_index = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
    f->block_index = block_index;
    f->block_size = threads;
    f->grid_size = grid;
    f->state = State::ready;
    f->n_copies = 0;
    b.order[i] = settings().order == Order::reverse ? b.n - 1 - i : i;
  }
  if (settings().order == Order::random)
    for (unsigned i = b.n; i > 1; --i) std::swap(b.order[i - 1], b.order[b.random() % i]);
  for (unsigned w = 0; w * kLanes < b.n; ++w) {
    b.warps[w].n_meetings = 0;
    b.warps[w].exited = b.n - w * kLanes < kLanes ? ~0U << (b.n - w * kLanes) : 0;
  }
  b.done = b.arrived = 0;
  b.position = b.n - 1;
}

}  // namespace

void yield_from(Fiber* fiber) {
  Fiber* next = pick();
  if (next == fiber) return;
  if (next != nullptr) return switch_to(fiber, next);
  if (block.done != block.n) report_deadlock();
  back_to_host(fiber);
}

void stop_with(const char* message) {
  set_message(message);
  back_to_host(me());
  std::abort();  // nobody comes back to a failed grid
}

void fail_thread(const char* file, int line, const char* format, ...) {
  char text[600], whole[1000];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const uint3 b = me()->block_index;
  std::snprintf(whole, sizeof whole, "%.250s:%d: thread %u of block (%u, %u, %u): %s", file, line, me()->linear, b.x, b.y, b.z, text);
  stop_with(whole);
}

void block_barrier(const char* file, int line) {
  Fiber* fiber = me();
  fiber->file = file;
  fiber->line = line;
  if (settings().strict) {
    if (block.arrived != 0 && (block.barrier_line != line || std::strcmp(block.barrier_file, file) != 0))
      fail_thread(file, line, "divergent __syncthreads: other threads of the block wait at %.200s:%d", block.barrier_file, block.barrier_line);
    if (block.done != 0) fail_thread(file, line, "__syncthreads after %u threads of the block have exited", block.done);
  }
  block.barrier_file = file;
  block.barrier_line = line;
  void* order = block.barrier_order(block.parity);
  order_release(order);
  if (++block.arrived == block.n - block.done) {
    release_barrier();
    if (settings().order == Order::random) yield_from(fiber);
  } else {
    fiber->state = State::at_barrier;
    yield_from(fiber);
  }
  order_acquire(order);
}

int block_vote(Vote vote, bool predicate, const char* file, int line) {
  if (block.arrived == 0) block.votes = 0;
  block.votes += predicate;
  block_barrier(file, line);
  const int votes = block.votes, all = static_cast<int>(block.n - block.done);
  block_barrier(file, line);  // nobody votes again before everybody has read
  return vote == Vote::count ? votes : vote == Vote::all ? votes == all : votes != 0;
}

void thread_fence() {
  order_release(&block.fence_order);
  order_acquire(&block.fence_order);
}

std::string run_grid(const char* name, dim3 grid, dim3 threads, std::size_t shared_bytes, const std::function<void()>& body) {
  Block& b = block;
  b.n = threads.x * threads.y * threads.z;
  b.body = &body;
  b.failed = false;
  b.random_state = settings().seed * 0x9E3779B97F4A7C15ULL + 88172645463325252ULL;
  for (auto& set : fibers)
    while (set.size() < b.n) {
      auto fiber = std::make_unique<Fiber>();
      make_stack(fiber->context, fiber_main);
      set.push_back(std::move(fiber));
    }
  const std::uint64_t n_blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  std::vector<std::uint64_t> shuffled(settings().order == Order::random ? n_blocks : 0);
  for (std::uint64_t i = 0; i < shuffled.size(); ++i) shuffled[i] = i;
  for (std::uint64_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[b.random() % i]);
  adopt_current(b.host);
  order_release(&b.launch_order);
  const Watch watch(name);
  for (std::uint64_t turn = 0; turn < n_blocks && !b.failed; ++turn) {
    begin_block(grid, threads, !shuffled.empty() ? shuffled[turn] : settings().order == Order::reverse ? n_blocks - 1 - turn : turn, turn);
    begin_shared(shared_bytes, turn == 0);
    switch_to(nullptr, pick());
    end_shared();
  }
  forget_shared();
  order_acquire(&b.done_order);
  if (!b.failed) return "";
  for (auto& set : fibers)
    for (auto& fiber : set) restart_stack(fiber->context, fiber_main);
  return std::string("kernel ") + name + ": " + b.error;
}

}  // namespace kemu
