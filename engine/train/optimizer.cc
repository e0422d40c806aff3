#include "engine/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace octet::train {
namespace {

constexpr float kMomentum = 0.9F;
constexpr float kSquares = 0.999F;
constexpr double kAverage = 0.99;
constexpr float kEpsilon = 1e-12F;

}  // namespace

Optimizer::Optimizer(TrainMethod method, double rate, int64_t steps,
                     std::vector<Parameter*> parameters)
    : method_(method), base_rate_(rate), steps_(steps), parameters_(std::move(parameters)) {
  for (const Parameter* parameter : parameters_) {
    state_.average.push_back(parameter->values);
    state_.first.emplace_back(parameter->values.size());
    state_.second.emplace_back(method == TrainMethod::kAdam ? parameter->values.size() : 0);
  }
}

double Optimizer::rate() const {
  const double share = static_cast<double>(state_.done) / static_cast<double>(steps_);
  return base_rate_ * (1 + std::cos(std::numbers::pi * std::min(share, 1.0))) / 2;
}

void Optimizer::Step() {
  for (size_t slot = 0; slot < parameters_.size(); ++slot) {
    if (method_ == TrainMethod::kAdam)
      StepAdam(*parameters_[slot], slot);
    else
      StepSgd(*parameters_[slot], slot);
  }
  ++state_.done;
  const auto t = static_cast<double>(state_.done);
  const auto share = static_cast<float>(1 - std::min(kAverage, t / (t + 10)));
  for (size_t slot = 0; slot < parameters_.size(); ++slot) {
    const std::vector<float>& values = parameters_[slot]->values;
    std::vector<float>& average = state_.average[slot];
    for (size_t i = 0; i < values.size(); ++i) average[i] += share * (values[i] - average[i]);
  }
}

void Optimizer::SwapAverages() {
  for (size_t slot = 0; slot < parameters_.size(); ++slot)
    parameters_[slot]->values.swap(state_.average[slot]);
}

void Optimizer::StepAdam(Parameter& parameter, size_t slot) {
  const auto t = static_cast<double>(state_.done + 1);
  const auto rate = static_cast<float>(this->rate() / (1 - std::pow(kMomentum, t)));
  const auto correction = static_cast<float>(1 / (1 - std::pow(kSquares, t)));
  float* const m = state_.first[slot].data();
  float* const v = state_.second[slot].data();
  const float* const g = parameter.gradients.data();
  float* const value = parameter.values.data();
  for (size_t i = 0; i < parameter.values.size(); ++i) {
    m[i] = kMomentum * m[i] + (1 - kMomentum) * g[i];
    v[i] = kSquares * v[i] + (1 - kSquares) * g[i] * g[i];
    value[i] -= rate * m[i] / (std::sqrt(v[i] * correction) + kEpsilon);
  }
}

void Optimizer::StepSgd(Parameter& parameter, size_t slot) {
  const auto rate = static_cast<float>(this->rate());
  float* const m = state_.first[slot].data();
  for (size_t i = 0; i < parameter.values.size(); ++i) {
    const float unit = parameter.units[i];
    // A channel so small that the square is no float has nothing to learn.
    if (unit * unit < std::numeric_limits<float>::min()) continue;
    m[i] = kMomentum * m[i] + parameter.gradients[i] / (unit * unit);
    parameter.values[i] -= rate * m[i];
  }
}

}  // namespace octet::train
