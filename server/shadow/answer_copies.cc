#include "server/shadow/answer_copies.h"

#include <utility>

#include "server/routing/draw.h"
#include "server/routing/shadow.h"
#include "server/shadow/shadow_copy.h"

namespace octet {

AnswerCopies::AnswerCopies(const ModelVersion& version, Precision precision, bool captures) {
  if (version.shadow != nullptr &&
      WantsCopy(*version.routing.shadow, {.answered = precision, .draw = Draw()})) {
    shadow_ = version.shadow;
  }
  if (version.capture == nullptr || !captures) return;
  capture_draw_ = Draw();
  if (version.capture->Draws(capture_draw_)) capture_ = version.capture;
}

void AnswerCopies::Make(AnsweredRequest request, Dispatcher& dispatcher) && {
  if (capture_ != nullptr) capture_->Offer(capture_draw_, request.inputs);
  if (shadow_ != nullptr) SubmitShadow(std::move(shadow_), std::move(request), dispatcher);
}

}  // namespace octet
