// Runs an answered request once more, in another precision, and counts how far the answers are apart.
#pragma once

#include <memory>

#include "server/repository/model_version.h"
#include "server/scheduling/dispatcher.h"
#include "server/shadow/answered_request.h"

namespace octet {

/// Submits a copy of the request to the shadow's queue and returns; when the copy has run it is
/// compared, output by output, on the worker that ran it. Whatever becomes of it is counted, and
/// nothing else: no error reaches anybody. Of outputs that were not asked for nothing is compared.
/// Requires: shadow.pairs has the precision that answered. Thread-safety: safe.
void SubmitShadow(std::shared_ptr<ServedShadow> shadow, AnsweredRequest request,
                  Dispatcher& dispatcher);

}  // namespace octet
