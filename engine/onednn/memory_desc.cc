#include "engine/onednn/memory_desc.h"

namespace octet::onednn {
namespace {

dnnl::memory::dims RowMajorStrides(std::span<const int64_t> dims) {
  dnnl::memory::dims strides(dims.size());
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(dims[i], 1);
  }
  return strides;
}

}  // namespace

dnnl::memory::data_type ToDnnl(DType dtype) {
  using Type = dnnl::memory::data_type;
  switch (dtype) {
    case DType::kF32:
      return Type::f32;
    case DType::kBF16:
      return Type::bf16;
    case DType::kF16:
      return Type::f16;
    case DType::kU8:
      return Type::u8;
    case DType::kI8:
      return Type::s8;
    case DType::kI32:
      return Type::s32;
    default:
      return Type::undef;
  }
}

dnnl::memory::desc DenseDesc(DType dtype, std::span<const int64_t> dims) {
  if (dims.empty()) return VectorDesc(dtype, 1);
  return {dnnl::memory::dims(dims.begin(), dims.end()), ToDnnl(dtype), RowMajorStrides(dims)};
}

dnnl::memory::desc PermutedDesc(DType dtype, std::span<const int64_t> dims,
                                std::span<const int> order) {
  const dnnl::memory::dims strides = RowMajorStrides(dims);
  dnnl::memory::dims logical_dims;
  dnnl::memory::dims logical_strides;
  for (const int axis : order) {
    logical_dims.push_back(dims[axis]);
    logical_strides.push_back(strides[axis]);
  }
  return {logical_dims, ToDnnl(dtype), logical_strides};
}

dnnl::memory::desc AnyDesc(DType dtype, std::span<const int64_t> dims) {
  return {dnnl::memory::dims(dims.begin(), dims.end()), ToDnnl(dtype),
          dnnl::memory::format_tag::any};
}

dnnl::memory::desc VectorDesc(DType dtype, int64_t count) {
  return {dnnl::memory::dims{count}, ToDnnl(dtype), dnnl::memory::format_tag::a};
}

}  // namespace octet::onednn
