// The decoding of pictures as a model, which the workers run as they run any other one.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "server/picture/picture_recipe.h"

namespace octet {

/// Names of its input and its output.
inline constexpr const char* kPictureInput = "picture";
inline constexpr const char* kPictureOutput = "tensor";

/// A model that turns BYTES "picture" [N, 1], one JPEG or PNG an element, into "tensor", which is `input` as a model takes it.
/// It does not batch: a picture that cannot be read is its own request's fault alone. The pictures of a request are shared out
/// among the worker's threads, and share a PictureRecipe::Budget. Errors of a run: as PictureRecipe::Write, naming the picture by
/// its index.
std::shared_ptr<const Model> MakePictureModel(PictureRecipe recipe, const TensorInfo& input);

}  // namespace octet
