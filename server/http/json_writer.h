// JSON of answers: messages by their descriptions, tensors by their elements.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include <google/protobuf/message.h>

#include "engine/engine.h"

namespace octet {

/// Appends the text, quoted. What is not UTF-8 becomes U+FFFD.
void AppendJsonText(std::string_view text, std::string& json);

/// Appends a message as REST clients of the protocol know it: fields by their names in the .proto, 64-bit
/// integers as numbers (protobuf's own JSON makes them text), enumerators by name, maps as objects, what is
/// not set with its default, except messages and members of a oneof.
void AppendJsonMessage(const google::protobuf::Message& message, std::string& json);
/// The same of all elements of a repeated field, as an array.
void AppendJsonArray(const google::protobuf::Message& message, const std::string& field,
                     std::string& json);

/// Appends the elements of a tensor as a flat array. Reals are the shortest text that reads back as the
/// same number; those that JSON does not know are NaN, Infinity and -Infinity, as Python's json reads them
/// and other servers of the protocol write them. FP16 and BF16 are their FP32 values.
/// BYTES come in their wire form, and are texts as AppendJsonText writes them.
absl::Status AppendJsonElements(DType dtype, const Shape& shape, std::string_view raw,
                                std::string& json);

}  // namespace octet
