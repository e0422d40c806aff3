#include "engine/passes/bisection.h"

#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<size_t> FirstWrongPass(
    std::span<const Pass> passes,
    const std::function<absl::StatusOr<bool>(std::span<const Pass>)>& is_right) {
  size_t right = 0;
  size_t wrong = passes.size();
  while (wrong - right > 1) {
    const size_t middle = right + (wrong - right) / 2;
    const absl::StatusOr<bool> answer = is_right(passes.first(middle));
    if (!answer.ok()) {
      return Annotate(answer.status(), Format("with the first {} of {} passes, up to {}", middle,
                                              passes.size(), passes[middle - 1].name));
    }
    (*answer ? right : wrong) = middle;
  }
  return right;
}

}  // namespace octet
