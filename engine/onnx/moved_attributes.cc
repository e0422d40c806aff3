#include "engine/onnx/moved_attributes.h"

#include <algorithm>
#include <array>

#include "engine/tensor/status.h"

namespace octet {
namespace {

struct Moved {
  std::string_view op;
  std::string_view attribute;
  int since;  ///< The first opset that does not have it.
};

// Those that change what a node computes; what Dropout's ratio says means nothing when a model is only run. Source: ONNX, Changelog.md.
constexpr std::array kMoved = std::to_array<Moved>({
    {"Add", "axis", 7},
    {"And", "axis", 7},
    {"Div", "axis", 7},
    {"Equal", "axis", 7},
    {"Greater", "axis", 7},
    {"Less", "axis", 7},
    {"Mul", "axis", 7},
    {"Or", "axis", 7},
    {"Pow", "axis", 7},
    {"Sub", "axis", 7},
    {"Xor", "axis", 7},
    {"Scan", "directions", 9},
    {"Upsample", "scales", 9},
    {"Slice", "axes", 10},
    {"Slice", "ends", 10},
    {"Slice", "starts", 10},
    {"TopK", "k", 10},
    {"Clip", "max", 11},
    {"Clip", "min", 11},
    {"Pad", "pads", 11},
    {"Pad", "value", 11},
    {"ReduceSum", "axes", 13},
    {"Split", "split", 13},
    {"Squeeze", "axes", 13},
    {"Unsqueeze", "axes", 13},
    {"ReduceL1", "axes", 18},
    {"ReduceL2", "axes", 18},
    {"ReduceLogSum", "axes", 18},
    {"ReduceLogSumExp", "axes", 18},
    {"ReduceMax", "axes", 18},
    {"ReduceMean", "axes", 18},
    {"ReduceMin", "axes", 18},
    {"ReduceProd", "axes", 18},
    {"ReduceSumSquare", "axes", 18},
    {"DFT", "axis", 20},
});

}  // namespace

absl::Status CheckNotMoved(const Node& node, std::string_view attribute) {
  if (node.domain != kOnnxDomain) return absl::OkStatus();
  const auto moved = std::ranges::find_if(kMoved, [&](const Moved& row) {
    return row.op == node.op && row.attribute == attribute && node.version >= row.since;
  });
  if (moved == kMoved.end()) return absl::OkStatus();
  return InvalidArgument("attribute '{}' is none of the operator since opset {}, the node's is {}",
                         attribute, moved->since, node.version);
}

}  // namespace octet
