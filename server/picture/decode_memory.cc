#include "server/picture/decode_memory.h"

#include "absl/base/const_init.h"
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace octet {
namespace {

/// Held while one waits: those behind it cannot take what it waits for.
absl::Mutex decode_turn(absl::kConstInit);
absl::Mutex decode_mutex(absl::kConstInit);
size_t decode_taken ABSL_GUARDED_BY(decode_mutex) = 0;

bool Fits(const size_t* bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(decode_mutex) {
  return decode_taken == 0 ||
         (*bytes <= DecodeMemory::kMost && decode_taken <= DecodeMemory::kMost - *bytes);
}

}  // namespace

DecodeMemory::DecodeMemory(size_t bytes) : bytes_(bytes) {
  const absl::MutexLock my_turn(&decode_turn);
  const absl::MutexLock lock(&decode_mutex, absl::Condition(Fits, &bytes_));
  decode_taken += bytes_;
}

void DecodeMemory::Release() {
  if (bytes_ == 0) return;
  const absl::MutexLock lock(&decode_mutex);
  decode_taken -= bytes_;
}

size_t DecodeMemory::used() {
  const absl::MutexLock lock(&decode_mutex);
  return decode_taken;
}

}  // namespace octet
