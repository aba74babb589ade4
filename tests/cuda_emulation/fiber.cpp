// Stacks of emulated threads: a switch of fifteen instructions, and what the sanitizers have to be told.
#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "internal.h"

#if KEMU_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if KEMU_THREAD_SANITIZER
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

#if !defined(__x86_64__)
#error "the emulator of CUDA runs on x86-64"
#endif

extern "C" void kemu_switch_stack(void** save, void* load);
asm(R"(
.text
.globl kemu_switch_stack
.type kemu_switch_stack,@function
kemu_switch_stack:
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
.size kemu_switch_stack,.-kemu_switch_stack
)");

namespace kemu {

namespace {
constexpr std::size_t kGuard = 4096;
}

void restart_stack(Context& context, void (*entry)()) {
  unpoison_memory(const_cast<void*>(context.stack), context.stack_bytes);
  context.fake_stack = nullptr;
#if KEMU_THREAD_SANITIZER
  if (context.thread_state != nullptr) __tsan_destroy_fiber(context.thread_state);
  context.thread_state = __tsan_create_fiber(0);
#endif
  const auto top = reinterpret_cast<std::uintptr_t>(context.stack) + context.stack_bytes;
  auto** slot = reinterpret_cast<void**>(top / 16 * 16);
  *--slot = nullptr;                         // where entry() would return to
  *--slot = reinterpret_cast<void*>(entry);  // taken by ret
  for (int i = 0; i < 6; ++i) *--slot = nullptr;
  context.stack_pointer = slot;
}

void make_stack(Context& context, void (*entry)()) {
  void* memory = mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
    std::perror("kemu: a stack for an emulated thread");
    std::abort();
  }
  context.stack = static_cast<char*>(memory) + kGuard;
  context.stack_bytes = kStackBytes;
  restart_stack(context, entry);
}

void adopt_current(Context& context) {
#if KEMU_ADDRESS_SANITIZER
  pthread_attr_t attributes;
  void* stack = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &stack, &context.stack_bytes);
  pthread_attr_destroy(&attributes);
  context.stack = stack;
#endif
#if KEMU_THREAD_SANITIZER
  context.thread_state = __tsan_get_current_fiber();
#endif
  (void)context;
}

void switch_context(Context& from, Context& to) {
#if KEMU_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if KEMU_THREAD_SANITIZER
  __tsan_switch_to_fiber(to.thread_state, 1);  // 1: the switch itself orders nothing
#endif
  kemu_switch_stack(&from.stack_pointer, to.stack_pointer);
#if KEMU_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void arrived() {
#if KEMU_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void order_release(void* variable) {
#if KEMU_THREAD_SANITIZER
  __tsan_release(variable);
#endif
  (void)variable;
}
void order_acquire(void* variable) {
#if KEMU_THREAD_SANITIZER
  __tsan_acquire(variable);
#endif
  (void)variable;
}
void poison_memory(void* p, std::size_t bytes) {
#if KEMU_ADDRESS_SANITIZER
  __asan_poison_memory_region(p, bytes);
#endif
  (void)p, (void)bytes;
}
void unpoison_memory(void* p, std::size_t bytes) {
#if KEMU_ADDRESS_SANITIZER
  __asan_unpoison_memory_region(p, bytes);
#endif
  (void)p, (void)bytes;
}

}  // namespace kemu
