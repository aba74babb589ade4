// Switching between the stacks of emulated threads. For files that are built without sanitizers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kemu {

constexpr std::size_t kStackBytes = 128 * 1024;

/// Sets bytes as nothing does that a sanitizer intercepts.
inline void raw_fill(void* to, int value, std::size_t bytes) { asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory"); }
inline void raw_copy(void* to, const void* from, std::size_t bytes) { asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory"); }

/// A suspended stack. With sanitizers, also what they know about it.
struct Context {
  void* stack_pointer = nullptr;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;    // AddressSanitizer's
  void* thread_state = nullptr;  // ThreadSanitizer's
};

/// A new stack with a guard page below it; `entry` must never return.
void make_stack(Context& context, void (*entry)());
/// Forgets what runs on the stack and begins again at `entry`.
void restart_stack(Context& context, void (*entry)());
/// The context of the code that calls this.
void adopt_current(Context& context);
void switch_context(Context& from, Context& to);
/// The first thing to be called on a stack that is new or was restarted.
void arrived();

/// Orders memory for ThreadSanitizer: what came before a release at `variable` is seen after an acquire.
void order_release(void* variable);
void order_acquire(void* variable);
void poison_memory(void* p, std::size_t bytes);
void unpoison_memory(void* p, std::size_t bytes);

}  // namespace kemu
