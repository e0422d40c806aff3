// ZipMap: there are no maps, the rows of scores are the answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/strings.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace zip_map_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// x [N, 2] -> Relu -> scores -> ZipMap -> map, a sequence of maps from integers to floats, as skl2onnx declares it.
onnx::ModelProto MapModel() {
  onnx::ModelProto model = EmptyModel(17);
  onnx::OperatorSetIdProto& import = *model.add_opset_import();
  import.set_domain("ai.onnx.ml");
  import.set_version(1);
  *model.mutable_graph()->add_input() = TensorInfo("x", {1, 2});
  AddNode(model, "Relu", {"x"}, {"scores"});
  onnx::NodeProto& zip = AddNode(model, "ZipMap", {"scores"}, {"map"});
  zip.set_domain("ai.onnx.ml");
  onnx::AttributeProto& labels = *zip.add_attribute();
  labels.set_name("classlabels_int64s");
  labels.set_type(onnx::AttributeProto::INTS);
  labels.add_ints(3);
  labels.add_ints(5);
  onnx::ValueInfoProto& output = *model.mutable_graph()->add_output();
  output.set_name("map");
  onnx::TypeProto::Map& map =
      *output.mutable_type()->mutable_sequence_type()->mutable_elem_type()->mutable_map_type();
  map.set_key_type(onnx::TensorProto::INT64);
  map.mutable_value_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
  return model;
}

TEST(ZipMap, TheScoresAreTheOutputUnderItsName) {
  const auto graph = Read(MapModel());
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Tensor x = Tensor::From<float>(Shape{1, 2}, {0.25F, -1});
  const auto model = octet::Model::FromGraph(*graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const Signature& signature = (*model)->signature();
  ASSERT_EQ(signature.outputs.size(), 1U);
  EXPECT_EQ(signature.outputs[0].name, "map");
  EXPECT_EQ(signature.outputs[0].dtype, DType::kF32);
  EXPECT_EQ(signature.outputs[0].shape, (Shape{1, 2}));
  const auto answer = octet::testing::AnswerOf(*graph, {x});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(octet::testing::Elements<float>(answer->front().tensor), ElementsAre(0.25F, 0));
}

TEST(ZipMap, TheCertificateSaysSo) {
  const auto graph = Read(MapModel());
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto model = octet::Model::FromGraph(*graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<Shape> shapes = {Shape{1, 2}};
  const auto plan = (*model)->PlanFor(shapes);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const LayerRecord& last = (*plan)->certificate().layers.back();
  EXPECT_EQ(last.op, "ai.onnx.ml:ZipMap");
  EXPECT_EQ(last.impl, "octet:scores_for_map");
}

TEST(ZipMap, IsWrittenAsAnIdentity) {
  const auto graph = Read(MapModel());
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto bytes = WriteOnnxBytes(*graph);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  onnx::ModelProto written;
  ASSERT_TRUE(written.ParseFromString(*bytes));
  EXPECT_EQ(written.graph().node(1).op_type(), "Identity");
  EXPECT_EQ(written.graph().node(1).domain(), "");
  EXPECT_EQ(written.graph().node(1).attribute_size(), 0);
  EXPECT_EQ(written.graph().output(0).name(), "map");
}

TEST(ZipMap, StandsOnlyWhereAModelEnds) {
  onnx::ModelProto model = MapModel();
  AddNode(model, "Identity", {"map"}, {"again"});
  *model.mutable_graph()->add_output() = TensorInfo("again", {1, 2});
  EXPECT_THAT(Read(model).status().ToString(),
              HasSubstr("ZipMap 'map_node' (opset 1): unsupported maps"));
  model = MapModel();
  model.mutable_graph()->mutable_output(0)->set_name("scores");
  *model.mutable_graph()->mutable_output(0)->mutable_type() = TensorInfo("", {1, 2}).type();
  EXPECT_THAT(Read(model).status().ToString(), HasSubstr("unsupported maps"));
}

TEST(ZipMap, NeedsALabelForEachScore) {
  onnx::ModelProto model = MapModel();
  model.mutable_graph()->mutable_node(1)->mutable_attribute(0)->add_ints(7);
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(octet::Model::FromGraph(*graph, {}).status().ToString(),
              HasSubstr("rows of 2 scores for 3 labels"));
}

}  // namespace zip_map_test
}  // namespace octet::test
