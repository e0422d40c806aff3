// Stochastic gradient descent with momentum, and Adam.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/train/parameter.h"
#include "engine/train/train.h"

namespace octet::train {

/// Moves parameters against their gradients; at step t of T the rate is r_t = rate * (1 + cos(pi t / T)) / 2.
///   Adam  m = 0.9 m + 0.1 g,  v = 0.999 v + 0.001 g^2,  value -= r_t * m / (1 - 0.9^t) / (sqrt(v / (1 - 0.999^t)) + 1e-12)
///   SGD   m = 0.9 m + g / unit^2,  value -= r_t * m:  a step of r_t along the gradient by the reals, which are value * unit
/// Keeps the values' moving average, a += (1 - d) (value - a), d = min(0.99, t / (t + 10)): steadier than the values, which go back and forth
/// over the edges of their roundings.
/// Source: Kingma and Ba, Adam (2015); Loshchilov and Hutter, SGDR (2017).
class Optimizer {
 public:
  /// What it remembers from step to step, beside the parameters.
  struct State {
    int64_t done = 0;                         ///< Steps.
    std::vector<std::vector<float>> first;    ///< m, per parameter.
    std::vector<std::vector<float>> second;   ///< v; Adam's alone.
    std::vector<std::vector<float>> average;  ///< Of the values, per parameter.
  };

  Optimizer(TrainMethod method, double rate, int64_t steps, std::vector<Parameter*> parameters);

  void Step();
  double rate() const;
  /// Puts the averages in the place of the values, and back.
  void SwapAverages();
  State& state() { return state_; }

 private:
  void StepAdam(Parameter& parameter, size_t slot);
  void StepSgd(Parameter& parameter, size_t slot);

  TrainMethod method_;
  double base_rate_;
  int64_t steps_;
  std::vector<Parameter*> parameters_;
  State state_;
};

}  // namespace octet::train
