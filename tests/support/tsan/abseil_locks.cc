// Tells ThreadSanitizer what Abseil's locks order. Debian's libraries are built without it, so that each access under a lock looked
// like a race, ours and gRPC's. The functions here stand in front of those of libabsl_synchronization.
#include <dlfcn.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <sanitizer/tsan_interface.h>

namespace {

/// The library's own function. `name`: its symbol.
template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));  // NOLINT(*-reinterpret-cast)
}

/// `wait` lets go of the lock meanwhile, and has it again when it returns.
template <typename Wait>
bool WaitWithout(absl::Mutex* mutex, const Wait& wait) {
  __tsan_mutex_pre_unlock(mutex, 0);
  const bool result = wait();
  __tsan_mutex_post_unlock(mutex, 0);
  __tsan_mutex_pre_lock(mutex, 0);
  __tsan_mutex_post_lock(mutex, 0, 0);
  return result;
}

/// How __tsan_mutex_post_lock is told of an attempt.
unsigned Attempted(unsigned how, bool locked) {
  return locked ? how : how | __tsan_mutex_try_lock_failed;
}

void* Place(const absl::Notification* notification) {
  return const_cast<absl::Notification*>(notification);  // NOLINT(*-const-cast)
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

using synchronization_internal::KernelTimeout;

void Mutex::Lock() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian75Mutex4LockEv");
  __tsan_mutex_pre_lock(this, 0);
  real(this);
  __tsan_mutex_post_lock(this, 0, 0);
}

void Mutex::Unlock() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian75Mutex6UnlockEv");
  __tsan_mutex_pre_unlock(this, 0);
  real(this);
  __tsan_mutex_post_unlock(this, 0);
}

bool Mutex::TryLock() {
  static const auto real = Real<bool (*)(Mutex*)>("_ZN4absl7debian75Mutex7TryLockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_try_lock);
  const bool locked = real(this);
  __tsan_mutex_post_lock(this, Attempted(__tsan_mutex_try_lock, locked), 0);
  return locked;
}

void Mutex::ReaderLock() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian75Mutex10ReaderLockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_read_lock);
  real(this);
  __tsan_mutex_post_lock(this, __tsan_mutex_read_lock, 0);
}

void Mutex::ReaderUnlock() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian75Mutex12ReaderUnlockEv");
  __tsan_mutex_pre_unlock(this, __tsan_mutex_read_lock);
  real(this);
  __tsan_mutex_post_unlock(this, __tsan_mutex_read_lock);
}

bool Mutex::ReaderTryLock() {
  static const auto real = Real<bool (*)(Mutex*)>("_ZN4absl7debian75Mutex13ReaderTryLockEv");
  constexpr unsigned kHow = __tsan_mutex_read_lock | __tsan_mutex_try_lock;
  __tsan_mutex_pre_lock(this, kHow);
  const bool locked = real(this);
  __tsan_mutex_post_lock(this, Attempted(kHow, locked), 0);
  return locked;
}

bool Mutex::AwaitCommon(const Condition& condition, KernelTimeout timeout) {
  static const auto real = Real<bool (*)(Mutex*, const Condition&, KernelTimeout)>(
      "_ZN4absl7debian75Mutex11AwaitCommonERKNS0_9ConditionENS0_24synchronization_internal13"
      "KernelTimeoutE");
  return WaitWithout(this, [&] { return real(this, condition, timeout); });
}

bool Mutex::LockWhenCommon(const Condition& condition, KernelTimeout timeout, bool write) {
  static const auto real = Real<bool (*)(Mutex*, const Condition&, KernelTimeout, bool)>(
      "_ZN4absl7debian75Mutex14LockWhenCommonERKNS0_9ConditionENS0_24synchronization_internal13"
      "KernelTimeoutEb");
  const unsigned how = write ? 0 : __tsan_mutex_read_lock;
  __tsan_mutex_pre_lock(this, how);
  const bool holds = real(this, condition, timeout, write);
  __tsan_mutex_post_lock(this, how, 0);
  return holds;
}

void Mutex::Dtor() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian75Mutex4DtorEv");
  real(this);
  __tsan_mutex_destroy(this, __tsan_mutex_not_static);
}

bool CondVar::WaitCommon(Mutex* mutex, KernelTimeout timeout) {
  static const auto real = Real<bool (*)(CondVar*, Mutex*, KernelTimeout)>(
      "_ZN4absl7debian77CondVar10WaitCommonEPNS0_5MutexENS0_24synchronization_internal13"
      "KernelTimeoutE");
  return WaitWithout(mutex, [&] { return real(this, mutex, timeout); });
}

void Notification::Notify() {
  static const auto real = Real<void (*)(Notification*)>("_ZN4absl7debian712Notification6NotifyEv");
  __tsan_release(this);
  real(this);
}

void Notification::WaitForNotification() const {
  static const auto real =
      Real<void (*)(const Notification*)>("_ZNK4absl7debian712Notification19WaitForNotificationEv");
  real(this);
  __tsan_acquire(Place(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static const auto real = Real<bool (*)(const Notification*, Duration)>(
      "_ZNK4absl7debian712Notification30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = real(this, timeout);
  if (notified) __tsan_acquire(Place(this));
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  static const auto real = Real<bool (*)(const Notification*, Time)>(
      "_ZNK4absl7debian712Notification31WaitForNotificationWithDeadlineENS0_4TimeE");
  const bool notified = real(this, deadline);
  if (notified) __tsan_acquire(Place(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
