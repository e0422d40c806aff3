// Einsum as matrix products.
//
//   Einsum("bqhd,bkhd->bhqk")  =>  MatMul(Transpose(x):[b,h,q,d], Transpose(y):[b,h,d,k])
//   Einsum("bsd,dhe->bshe")    =>  Reshape(MatMul(x, Reshape(y):[d,h*e]))
//
// Of two operands, a label is one of four: a batch (in both and needed behind), summed (in both and not needed), a row
// (in the left one alone) or a column (in the right one alone). What only one has and nobody needs is summed up first.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "engine/ops/einsum.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Labels = std::vector<int>;

/// A value and the label of each of its axes; no label twice.
struct Term {
  ValueId value = kNone;
  Labels labels;

  bool has(int label) const { return std::ranges::contains(labels, label); }
};

bool HasRepeats(Labels labels) {
  std::ranges::sort(labels);
  return std::ranges::adjacent_find(labels) != labels.end();
}

class ProductWriter {
 public:
  ProductWriter(FunctionBody& body, const EinsumEquation& equation)
      : body_(body), equation_(equation) {}

  /// The output, or kNone where there is no such form (yet).
  ValueId Write() {
    std::vector<Term> terms;
    for (size_t i = 0; i < equation_.operands.size(); ++i) {
      if (HasRepeats(equation_.operands[i])) return kNone;
      terms.push_back(WithoutOnes({body_.input(i), equation_.operands[i]}));
    }
    Term sum = terms[0];
    for (size_t i = 1; i < terms.size(); ++i) {
      const auto needed = [&](int label) {
        return IsOutput(label) ||
               std::any_of(terms.begin() + static_cast<std::ptrdiff_t>(i) + 1, terms.end(),
                           [&](const Term& t) { return t.has(label); });
      };
      const auto product = Product(sum, terms[i], needed);
      if (!product) return kNone;
      sum = *product;
    }
    sum = Summed(sum, [&](int label) { return IsOutput(label); });
    Labels output;
    for (int label = 0; label < equation_.outputs; ++label) output.push_back(label);
    return Ordered(sum, output).value;
  }

 private:
  bool IsOutput(int label) const { return label < equation_.outputs; }

  int64_t Extent(const Term& term, int label) const {
    const auto at = std::ranges::find(term.labels, label) - term.labels.begin();
    return body_.extent(term.value, static_cast<int>(at));
  }

  Term Removed(const Term& term, std::string_view op, const auto& removes) {
    std::vector<int64_t> axes;
    Term left;
    for (size_t i = 0; i < term.labels.size(); ++i) {
      if (removes(term.labels[i])) {
        axes.push_back(static_cast<int64_t>(i));
      } else {
        left.labels.push_back(term.labels[i]);
      }
    }
    if (axes.empty()) return term;
    std::vector<FunctionBody::Attribute> attributes;
    if (op == "ReduceSum") attributes.emplace_back("keepdims", int64_t{0});
    left.value = body_.Op(op, {term.value, body_.Ints(axes)}, attributes);
    return left;
  }

  /// Without axes of extent 1 that repeat along another operand's.
  Term WithoutOnes(const Term& term) {
    return Removed(term, "Squeeze", [&](int label) {
      return Extent(term, label) == 1 && equation_.extents[static_cast<size_t>(label)] != 1;
    });
  }

  Term Summed(const Term& term, const auto& keeps) {
    return Removed(term, "ReduceSum", [&](int label) { return !keeps(label); });
  }

  Term Ordered(const Term& term, const Labels& order) {
    if (term.labels == order) return term;
    std::vector<int64_t> perm;
    for (const int label : order)
      perm.push_back(std::ranges::find(term.labels, label) - term.labels.begin());
    return {body_.Op("Transpose", {term.value}, {{"perm", perm}}), order};
  }

  std::optional<Term> Product(Term left, Term right, const auto& needed) {
    left = Summed(left, [&](int label) { return needed(label) || right.has(label); });
    right = Summed(right, [&](int label) { return needed(label) || left.has(label); });
    Labels batch;
    Labels summed;
    for (const int label : left.labels) {
      if (!right.has(label)) continue;
      (needed(label) ? batch : summed).push_back(label);
      const int64_t extent = Extent(left, label);
      if (!needed(label) && (extent == kUnknownDim || extent != Extent(right, label)))
        return std::nullopt;
    }
    // Constant matrices stand on the right.
    const auto constant = [&](const Term& t) { return body_.value(t.value).is_constant(); };
    if (batch.empty() && constant(left) && !constant(right)) std::swap(left, right);
    const auto alone = [](const Term& of, const Term& beside) {
      Labels labels = of.labels;
      std::erase_if(labels, [&](int label) { return beside.has(label); });
      return labels;
    };
    const Labels rows = alone(left, right);
    const Labels columns = alone(right, left);
    if (summed.empty()) return Elementwise(left, right, columns);
    return Matrices(left, right, {batch, rows, columns, summed});
  }

  static Labels Joined(std::initializer_list<Labels> parts) {
    Labels all;
    for (const Labels& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  /// The axes of `left` as they are, the columns behind them.
  Term Elementwise(const Term& left, const Term& right, const Labels& columns) {
    const Labels labels = Joined({left.labels, columns});
    const auto spread = [&](const Term& term) {
      Labels own = labels;
      std::erase_if(own, [&](int label) { return !term.has(label); });
      const ValueId ordered = Ordered(term, own).value;
      std::vector<int64_t> axes;
      for (size_t i = 0; i < labels.size(); ++i) {
        if (!term.has(labels[i])) axes.push_back(static_cast<int64_t>(i));
      }
      return axes.empty() ? ordered : body_.Op("Unsqueeze", {ordered, body_.Ints(axes)});
    };
    const ValueId a = spread(left);
    const ValueId b = spread(right);
    return {body_.Op("Mul", {a, b}), labels};
  }

  struct Parts {
    Labels batch, rows, columns, summed;
  };

  std::optional<Term> Matrices(const Term& left, const Term& right, const Parts& parts) {
    // A matrix for all rows takes them as they are.
    const bool shared = parts.batch.empty() && !parts.rows.empty();
    std::vector<Labels> left_axes = OneEach(shared ? parts.rows : parts.batch);
    if (!shared) left_axes.push_back(parts.rows);
    left_axes.push_back(parts.summed);
    std::vector<Labels> right_axes = OneEach(parts.batch);
    right_axes.push_back(parts.summed);
    right_axes.push_back(parts.columns);
    const ValueId a =
        Merged(Ordered(left, Joined({parts.batch, parts.rows, parts.summed})), left_axes);
    const ValueId b =
        Merged(Ordered(right, Joined({parts.batch, parts.summed, parts.columns})), right_axes);
    if (a == kNone || b == kNone) return std::nullopt;
    const ValueId product = body_.Op("MatMul", {a, b});
    const size_t leading = shared ? parts.rows.size() : parts.batch.size();
    const bool whole = parts.columns.size() == 1 && (shared || parts.rows.size() == 1);
    const Labels labels = Joined({parts.batch, parts.rows, parts.columns});
    if (whole) return Term{product, labels};
    std::vector<int64_t> target;
    for (size_t i = 0; i < labels.size(); ++i) {
      // 0 keeps what is there.
      const Term& from = left.has(labels[i]) ? left : right;
      const int64_t extent = i < leading ? 0 : Extent(from, labels[i]);
      target.push_back(extent == kUnknownDim ? -1 : extent);
    }
    if (std::ranges::count(target, -1) > 1) return std::nullopt;
    return Term{body_.Op("Reshape", {product, body_.Ints(target)}), labels};
  }

  static std::vector<Labels> OneEach(const Labels& labels) {
    std::vector<Labels> each;
    for (const int label : labels) each.push_back({label});
    return each;
  }

  /// One axis for each group of labels that lie side by side, 1 for none; kNone while too many extents are open.
  ValueId Merged(const Term& term, const std::vector<Labels>& groups) {
    if (std::ranges::all_of(groups, [](const Labels& g) { return g.size() == 1; }))
      return term.value;
    std::vector<int64_t> target;
    bool in_place = true;  // Every axis so far is the term's own at this place.
    for (const Labels& group : groups) {
      in_place = in_place && group.size() == 1;
      int64_t extent = in_place ? 0 : 1;
      for (size_t i = 0; !in_place && i < group.size(); ++i) {
        const int64_t own = Extent(term, group[i]);
        extent = own == kUnknownDim || extent == -1 ? -1 : extent * own;
      }
      target.push_back(extent);
    }
    if (std::ranges::count(target, -1) > 1) return kNone;
    return body_.Op("Reshape", {term.value, body_.Ints(target)});
  }

  FunctionBody& body_;
  const EinsumEquation& equation_;
};

}  // namespace

absl::Status ExpandEinsum(FunctionBody& body) {
  const DType dtype = body.value(body.input(0)).dtype;
  std::vector<Shape> shapes;
  bool empty = false;
  for (size_t i = 0; i < body.node().inputs.size(); ++i) {
    const Value& operand = body.value(body.input(i));
    if (!IsFloat(operand.dtype) || operand.quant || !operand.shape) return body.Later(dtype);
    shapes.push_back(*operand.shape);
    empty = empty || std::ranges::contains(*operand.shape, 0);
  }
  // A Reshape's 0 stands for another extent.
  if (empty) return body.Later(dtype);
  OCTET_ASSIGN_OR_RETURN(const EinsumEquation equation, ReadEinsum(body.node(), shapes));
  const ValueId output = ProductWriter(body, equation).Write();
  if (output == kNone) return body.Later(dtype);
  body.Output(0, output);
  return absl::OkStatus();
}

}  // namespace octet
