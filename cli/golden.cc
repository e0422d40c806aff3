// octet golden: answers that a version's files are held to when a server loads them.
#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/model_options.h"
#include "cli/output_file.h"
#include "cli/samples.h"
#include "cli/session.h"
#include "cli/verb.h"

#include "engine/engine.h"
#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

struct GoldenOptions {
  std::string version;
  std::string data;
  std::string map;
  int64_t samples = 16;
};

/// The first samples and what the model answers to each alone; one sample of a model that does not batch.
class Recording {
 public:
  Recording(Session session, const Samples& samples)
      : session_(std::move(session)), samples_(samples) {}

  absl::Status Record(int64_t count) {
    const Signature& signature = session_.model().signature();
    const int64_t own = samples_.OwnBatch(signature);
    if (own != kUnknownDim && samples_.count() < own) {
      return InvalidArgument("too few samples: the model's own batch is {}, got {}", own,
                             samples_.count());
    }
    const bool one_by_one = signature.batches && !samples_.whole_inputs();
    rows_ = one_by_one ? 1 : own == kUnknownDim ? samples_.count() : own;
    count = one_by_one ? std::min(count, samples_.count()) : 1;
    for (const auto* tensors : {&signature.inputs, &signature.outputs}) {
      for (const TensorInfo& info : *tensors) {
        if (!NpzHolds(info.dtype)) {
          return Unimplemented("'{}' is of type {}, which .npz files do not have", info.name,
                               DTypeName(info.dtype));
        }
        arrays_.push_back({.name = info.name, .pieces = {}});
      }
    }
    for (int64_t sample = 0; sample < count; ++sample) OCTET_RETURN_IF_ERROR(RunSample(sample));
    return absl::OkStatus();
  }

  std::span<const NpzArray> arrays() const { return arrays_; }
  size_t samples() const { return arrays_[0].pieces.size(); }

 private:
  absl::Status RunSample(int64_t sample) {
    OCTET_RETURN_IF_ERROR(session_.Prepare(samples_.BatchShapes(sample * rows_, rows_)));
    const size_t inputs = session_.inputs().size();
    for (size_t i = 0; i < inputs; ++i) {
      OCTET_RETURN_IF_ERROR(samples_.Read(i, sample * rows_, rows_, session_.input(i)));
      Keep(i, session_.input(i));
    }
    OCTET_RETURN_IF_ERROR(session_.Run());
    for (size_t i = 0; i < session_.output_count(); ++i) Keep(inputs + i, session_.output(i));
    return absl::OkStatus();
  }

  void Keep(size_t array, ConstTensorView view) {
    Tensor& copy =
        kept_.emplace_back(view.dtype() == DType::kString
                               ? Tensor::Strings(view.shape(), view.span<std::string_view>())
                               : Tensor(view.dtype(), view.shape()));
    if (view.dtype() != DType::kString) {
      std::memcpy(copy.mutable_data(), view.data, view.bytes());
    }
    arrays_[array].pieces.push_back(copy.view());
  }

  Session session_;
  const Samples& samples_;
  int64_t rows_ = 1;
  std::deque<Tensor> kept_;
  std::vector<NpzArray> arrays_;
};

absl::Status Golden(const GoldenOptions& options) {
  ConfigureWorkerThread(1);
  const fs::path folder(options.version);
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model,
                         Model::Load((folder / "fp32.onnx").string(), LoadOptions()));
  const std::string file = (folder / "golden.npz").string();
  OCTET_RETURN_IF_ERROR(CheckOutputFile(file, std::array{options.data, options.map}));
  OCTET_ASSIGN_OR_RETURN(const Samples samples,
                         Samples::Open(model->signature(), {{options.data}, options.map}));
  Recording recording(Session(std::move(model)), samples);
  OCTET_RETURN_IF_ERROR(recording.Record(options.samples));
  // Whoever serves the model reads it, as it reads the model.
  OCTET_RETURN_IF_ERROR(WriteNpz(file, recording.arrays(), 0666));
  std::cout << Format("{}: {} samples and fp32's answers\n", file, recording.samples());
  return absl::OkStatus();
}

}  // namespace

void AddGolden(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<GoldenOptions>();
  CLI::App* verb = app.add_subcommand(
      "golden", "Write what fp32 answers to samples: a server holds every precision to it at load");
  verb->add_option("VERSION_DIR", options->version, "Folder with fp32.onnx; gets golden.npz")
      ->required();
  verb->add_option("--data", options->data,
                   "Sample inputs: an .npz or .npy file, or a folder of them")
      ->required();
  verb->add_option("--map", options->map,
                   "model.yaml that says how the samples' element type maps to the model's");
  verb->add_option("--samples", options->samples, "Samples to take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->callback([options, &outcome] {
    if (const absl::Status status = Golden(*options); !status.ok()) {
      outcome.exit_code = Fail(status);
    }
  });
}

}  // namespace octet::cli
