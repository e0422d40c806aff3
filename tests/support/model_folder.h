// A model repository in a temporary folder, with models small enough to load in milliseconds.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "engine/onnx/onnx_file.h"
#include "tests/support/graph_builder.h"

namespace octet {

/// y = x * factor, [?, 4] FP32: tells by its answers which file it came from.
inline Graph ScalingModel(float factor, const Shape& shape = {kUnknownDim, 4},
                          std::string_view input = "x") {
  GraphBuilder b;
  const ValueId x = b.Input(input, shape);
  b.Output(b.Op("Mul", {x, b.Constant<float>({4}, {factor, factor, factor, factor})}), "y");
  return b.Build();
}

/// Owns the folder.
class ModelFolder {
 public:
  ModelFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "octet-models-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~ModelFolder() { std::filesystem::remove_all(root_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  std::string path() const { return root_.string(); }
  std::string path(std::string_view file) const { return (root_ / file).string(); }

  /// Writes "net/1/fp32.onnx", whole or not at all, with a stamp that no earlier file had.
  void Write(std::string_view file, const Graph& graph) {
    const std::string written = Prepare(file) + ".part";
    ASSERT_TRUE(WriteOnnxFile(graph, written).ok());
    Place(written, file);
  }
  void Write(std::string_view file, std::string_view text) {
    const std::string written = Prepare(file) + ".part";
    std::ofstream(written, std::ios::binary) << text;
    Place(written, file);
  }
  /// Lets everybody look at a folder ("" is the whole one), or nobody but root.
  void Show(std::string_view folder, bool shown) {
    using std::filesystem::perms;
    std::filesystem::permissions(root_ / folder, shown ? perms::all : perms::none);
  }
  void Remove(std::string_view file) { std::filesystem::remove_all(root_ / file); }

 private:
  std::string Prepare(std::string_view file) {
    std::filesystem::create_directories((root_ / file).parent_path());
    return (root_ / file).string();
  }
  void Place(const std::string& written, std::string_view file) {
    // The clock of file times is too coarse to tell two writes of one test apart.
    const auto time = std::filesystem::file_time_type() + std::chrono::seconds(++writes_);
    std::filesystem::last_write_time(written, time);
    std::filesystem::rename(written, root_ / file);
  }

  std::filesystem::path root_;
  int writes_ = 0;
};

}  // namespace octet
