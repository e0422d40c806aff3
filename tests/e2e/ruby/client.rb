# Asks a running server with Ruby's gRPC; ends with 0 when every answer is right.
#
# usage: ruby -I STUBS client.rb HOST:PORT IMAGE LABEL LABELS    IMAGE: a file with one image of the demo, 3 x 32 x 32 bytes
require "inference_services_pb"

target, image_file, label, labels_file = ARGV
IMAGE = File.binread(image_file)
LABELS = File.read(labels_file).split
STUB = Inference::GRPCInferenceService::Stub.new(target, :this_channel_is_insecure, timeout: 20)
Input = Inference::ModelInferRequest::InferInputTensor
Output = Inference::ModelInferRequest::InferRequestedOutputTensor

def request(**changes)
  input = Input.new(name: "image", datatype: "UINT8", shape: [1, 3, 32, 32])
  Inference::ModelInferRequest.new(model_name: "glyphs", id: "from ruby", inputs: [input], raw_input_contents: [IMAGE], **changes)
end

def best(response)
  logits = response.raw_output_contents[0].unpack("e*")
  LABELS[logits.index(logits.max)]
end

def equal(expected, got)
  raise "expected #{expected.inspect}, got #{got.inspect}" unless expected == got
end

def refused(error, words)
  yield
rescue error => e
  raise "expected #{words}, got #{e.details}" unless e.details.match?(words)
else
  raise "expected #{error}, got an answer"
end

equal true, STUB.server_ready(Inference::ServerReadyRequest.new).ready
equal "octet", STUB.server_metadata(Inference::ServerMetadataRequest.new).name
metadata = STUB.model_metadata(Inference::ModelMetadataRequest.new(name: "glyphs"))
equal [-1, 3, 32, 32], metadata.inputs[0].shape.to_a
config = STUB.model_config(Inference::ModelConfigRequest.new(name: "glyphs")).config
equal :TYPE_FP32, config.input[0].data_type

%w[fp32 int8].each do |precision|
  wanted = Inference::InferParameter.new(string_param: precision)
  response = STUB.model_infer(request(parameters: { "precision" => wanted }))
  equal precision, response.parameters["precision"].string_param
  equal "from ruby", response.id
  equal label, best(response)
  equal precision, STUB.model_infer(request, metadata: { "x-octet-precision" => precision }).parameters["precision"].string_param
end

top = Output.new(name: metadata.outputs[0].name, parameters: { "classification" => Inference::InferParameter.new(int64_param: 2) })
bytes = STUB.model_infer(request(outputs: [top])).raw_output_contents[0]
equal label, bytes[4, bytes.unpack1("L<")].split(":")[2]

answers = STUB.model_stream_infer([request, request(model_name: "nobody"), request(id: "third")].each).to_a
equal 3, answers.size
equal label, best(answers[0].infer_response)
raise answers[1].error_message unless answers[1].error_message.start_with?("Request for unknown model")
equal "third", answers[2].infer_response.id

refused(GRPC::NotFound, /^Request for unknown model/) { STUB.model_infer(request(model_name: "nobody")) }
refused(GRPC::InvalidArgument, /expected 3072 .* got 3/) { STUB.model_infer(request(raw_input_contents: ["abc"])) }
equal label, best(STUB.model_infer(request))
statistics = STUB.model_statistics(Inference::ModelStatisticsRequest.new(name: "glyphs")).model_stats[0]
raise "no inference was counted" unless statistics.inference_count >= 8
