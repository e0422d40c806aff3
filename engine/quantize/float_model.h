// A model whose reals are FLOAT, whatever it declares them as: what every recipe, training and the comparison of layers begin with.
#pragma once

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/passes/reals_as_f32.h"
#include "engine/quantize/calibration_data.h"

namespace octet {

/// As InFloat makes it.
struct FloatModel {
  Graph graph;
  InterfaceTypes declared;  ///< By the model as it was; empty where that is this one.

  /// Gives a graph that was made of this one, with the same inputs and outputs, the types back that the model declares: behind a
  /// Cast of each input and before one of each output.
  void RestoreTypes(Graph& made) const;
};

/// Takes FLOAT16 and BFLOAT16 to FLOAT, everywhere: weights, activations, inputs and outputs, bodies of If and Loop; DOUBLE, too, where a
/// layer (convolution, matrix product, recurrent layer) makes it, or only inputs and outputs are of it, behind Casts: elsewhere it was chosen
/// for its bits. Weights of DOUBLE are rounded
/// so, and what is beyond FLOAT becomes its largest number. A graph without such types comes back as it is.
/// Errors: as InferShapes; UNIMPLEMENTED naming an input or output that is a sequence, or optional, of such types.
absl::StatusOr<FloatModel> InFloat(const Graph& graph);

/// The same samples, FLOAT where they are other reals; converted as they are read.
CalibrationData InFloat(const CalibrationData& set);

}  // namespace octet
