// Einsum: sums of products over named axes.
//   Source: ONNX Einsum-12; numpy.einsum.
#include "engine/ops/einsum.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Axes that "..." stands for have labels of their own, aligned to the right.
constexpr int kEllipsis = 128;

/// The labels of one term; `dots` is how many axes its "..." stands for. nullopt when it is none.
std::optional<std::vector<int>> ParseTerm(std::string_view term, int dots) {
  std::vector<int> labels;
  while (!term.empty()) {
    if (term.starts_with("...")) {
      for (int i = 0; i < dots; ++i) labels.push_back(kEllipsis + kMaxRank - dots + i);
      term.remove_prefix(3);
      if (term.contains("...")) return std::nullopt;
      continue;
    }
    const char c = term.front();
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))) return std::nullopt;
    labels.push_back(c);
    term.remove_prefix(1);
  }
  return labels;
}

std::vector<std::string> SplitTerms(std::string_view text) {
  std::vector<std::string> terms;
  for (;;) {
    const size_t comma = text.find(',');
    terms.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return terms;
    text.remove_prefix(comma + 1);
  }
}

/// Without "->": "..." and then every label that appears once, in alphabetical order.
std::vector<int> ImpliedOutput(const std::vector<std::vector<int>>& operands) {
  std::array<int, kEllipsis + kMaxRank> count{};
  for (const auto& labels : operands) {
    for (const int label : labels) ++count[label];
  }
  std::vector<int> output;
  for (int label = kEllipsis; label < kEllipsis + kMaxRank; ++label) {
    if (count[label] > 0) output.push_back(label);
  }
  for (int label = 0; label < kEllipsis; ++label) {
    if (count[label] == 1) output.push_back(label);
  }
  return output;
}

/// Gives labels their numbers and extents. False when extents contradict each other or the output has unknown labels.
bool Number(const std::vector<std::vector<int>>& operands, std::span<const Shape> shapes,
            const std::vector<int>& output, EinsumEquation& equation) {
  std::array<int, kEllipsis + kMaxRank> number;
  number.fill(kNone);
  for (const int label : output) {
    if (number[label] != kNone) return false;
    number[label] = equation.outputs++;
  }
  int labels = equation.outputs;
  equation.extents.assign(static_cast<size_t>(labels), 1);
  std::vector<bool> seen(static_cast<size_t>(labels), false);
  for (size_t i = 0; i < operands.size(); ++i) {
    auto& own = equation.operands.emplace_back();
    for (size_t d = 0; d < operands[i].size(); ++d) {
      int& at = number[operands[i][d]];
      if (at == kNone) {
        at = labels++;
        equation.extents.push_back(1);
        seen.push_back(false);
      }
      own.push_back(at);
      const auto merged =
          Broadcast(Shape{equation.extents[at]}, Shape{shapes[i][static_cast<int>(d)]});
      if (!merged) return false;
      equation.extents[at] = (*merged)[0];
      seen[at] = true;
    }
  }
  return std::ranges::all_of(seen, [](bool s) { return s; });
}

}  // namespace

absl::StatusOr<EinsumEquation> ReadEinsum(const Node& node, std::span<const Shape> shapes) {
  OCTET_ASSIGN_OR_RETURN(std::string text, node.attributes.String("equation", ""));
  std::erase(text, ' ');
  const auto bad = [&] {
    return InvalidArgument("{}: impossible 'equation': '{}'", Describe(node), text);
  };
  const size_t arrow = text.find("->");
  const std::vector<std::string> terms = SplitTerms(std::string_view(text).substr(0, arrow));
  if (terms.size() != shapes.size()) return bad();
  std::vector<std::vector<int>> operands;
  int most_dots = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    const bool open = terms[i].contains("...");
    const int letters = static_cast<int>(terms[i].size()) - (open ? 3 : 0);
    const int dots = shapes[i].rank() - letters;
    if (dots < 0 || (dots > 0 && !open)) return bad();
    const auto labels = ParseTerm(terms[i], dots);
    if (!labels || static_cast<int>(labels->size()) != shapes[i].rank()) return bad();
    operands.push_back(*labels);
    most_dots = std::max(most_dots, dots);
  }
  std::vector<int> output = ImpliedOutput(operands);
  if (arrow != std::string::npos) {
    const auto labels = ParseTerm(std::string_view(text).substr(arrow + 2), most_dots);
    if (!labels) return bad();
    output = *labels;
  }
  EinsumEquation equation;
  if (!Number(operands, shapes, output, equation)) return bad();
  return equation;
}

namespace {

absl::Status InferEinsum(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, SIZE_MAX));
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, context.input_count(), context.input_count()));
  std::vector<Shape> shapes;
  for (size_t i = 0; i < context.input_count(); ++i) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kNumbers));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    if (context.shape(i)) shapes.push_back(*context.shape(i));
  }
  if (shapes.size() != context.input_count())
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  OCTET_ASSIGN_OR_RETURN(const EinsumEquation equation, ReadEinsum(context.node(), shapes));
  return context.SetOutput(0, context.dtype(0),
                           Shape(std::span(equation.extents).first(equation.outputs)));
}

/// How far each operand moves when a label moves by one: the strides of its axes with that label (a diagonal adds them
/// up; an extent of 1 repeats).
std::vector<std::vector<int64_t>> StepsOf(const EinsumEquation& equation,
                                          std::span<const Shape> shapes) {
  std::vector<std::vector<int64_t>> steps(equation.extents.size(),
                                          std::vector<int64_t>(shapes.size(), 0));
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto strides = shapes[i].strides();
    for (size_t d = 0; d < equation.operands[i].size(); ++d) {
      if (shapes[i][static_cast<int>(d)] != 1)
        steps[static_cast<size_t>(equation.operands[i][d])][i] += strides[d];
    }
  }
  return steps;
}

absl::StatusOr<Kernel> MakeEinsum(const KernelContext& context) {
  std::vector<Shape> shapes;
  for (const ConstTensorView& input : context.inputs) shapes.push_back(input.shape());
  OCTET_ASSIGN_OR_RETURN(const EinsumEquation equation, ReadEinsum(context.node, shapes));
  const auto steps = StepsOf(equation, shapes);
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [equation, steps](std::span<const ConstTensorView> inputs,
                                 std::span<const TensorView> outputs) {
          using A = std::conditional_t<std::is_floating_point_v<T>, double, T>;
          const std::span<const int64_t> extents(equation.extents);
          int64_t terms = 1;
          for (const int64_t extent : extents.subspan(equation.outputs)) terms *= extent;
          // Position `k` of the labels [first, last) moves every operand's offset.
          const auto move = [&](int64_t k, size_t first, size_t last, std::span<int64_t> at) {
            for (size_t label = last; label-- > first; k /= extents[label]) {
              for (size_t i = 0; i < at.size(); ++i) at[i] += k % extents[label] * steps[label][i];
            }
          };
          const size_t count = inputs.size();
          const int64_t grain = 1 + 4096 / std::max<int64_t>(terms, 1);
          ParallelFor(outputs[0].elements(), grain, [&](int64_t begin, int64_t end) {
            std::vector<int64_t> base(count);
            std::vector<int64_t> at(count);
            for (int64_t o = begin; o < end; ++o) {
              std::ranges::fill(base, 0);
              move(o, 0, static_cast<size_t>(equation.outputs), base);
              A sum{0};
              for (int64_t k = 0; k < terms; ++k) {
                at = base;
                move(k, static_cast<size_t>(equation.outputs), extents.size(), at);
                A product{1};
                for (size_t i = 0; i < count; ++i)
                  product = math::Mul{}(product, static_cast<A>(inputs[i].as<T>()[at[i]]));
                sum = math::Add{}(sum, product);
              }
              outputs[0].as<T>()[o] = static_cast<T>(sum);
            }
          });
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> EinsumOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kOnnxDomain,
       .name = "Einsum",
       .since = 12,
       .infer = InferEinsum,
       .kernel = MakeEinsum,
       .expand = ExpandEinsum},
  };
  return kOps;
}

}  // namespace octet
