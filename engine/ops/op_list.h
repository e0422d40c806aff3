// The list of operator families. A new operator is a row in its family's table; a new family is one file
// and one line here. Registry, documentation and conformance tests follow.
#pragma once

#include <span>

#include "engine/ops/op.h"

/// X(Family): each family defines `std::span<const OpDef> <Family>Ops()` in the file named beside it.
#define OCTET_OP_FAMILIES(X)                        \
  /* alphabetical by family */                      \
  X(Activation)        /* activations.cc */         \
  X(Attention)         /* attention.cc */           \
  X(Cast)              /* cast.cc */                \
  X(CenterCropPad)     /* center_crop_pad.cc */     \
  X(ClassScore)        /* class_scores.cc */        \
  X(ColumnImage)       /* column_image.cc */        \
  X(Comparison)        /* comparison.cc */          \
  X(Concat)            /* concat.cc */              \
  X(Constant)          /* constants.cc */           \
  X(Control)           /* control.cc */             \
  X(ContribForm)       /* contrib_forms.cc */       \
  X(Conv)              /* conv.cc */                \
  X(ConvTranspose)     /* conv_transpose.cc */      \
  X(Cumulative)        /* cumulative.cc */          \
  X(DeformConv)        /* deform_conv.cc */         \
  X(Determinant)       /* determinant.cc */         \
  X(Einsum)            /* einsum.cc */              \
  X(ElementwiseMath)   /* elementwise_math.cc */    \
  X(Expand)            /* expand.cc */              \
  X(FourBitProduct)    /* four_bit_product.cc */    \
  X(Fused)             /* fused.cc */               \
  X(Gather)            /* gather.cc */              \
  X(GridSample)        /* grid_sample.cc */         \
  X(GroupNorm)         /* group_norm.cc */          \
  X(GroupQuery)        /* group_query.cc */         \
  X(Label)             /* label_encoder.cc */       \
  X(Legacy)            /* legacy.cc */              \
  X(LocalResponse)     /* local_response.cc */      \
  X(Loss)              /* loss.cc */                \
  X(MatMul)            /* matmul.cc */              \
  X(MaxRoiPool)        /* max_roi_pool.cc */        \
  X(MaxUnpool)         /* max_unpool.cc */          \
  X(MelWeight)         /* mel_weights.cc */         \
  X(MlFunction)        /* ml_functions.cc */        \
  X(NonMaxSuppression) /* non_max_suppression.cc */ \
  X(Normalization)     /* normalization.cc */       \
  X(OneHot)            /* one_hot.cc */             \
  X(OneHotEncoder)     /* one_hot_encoder.cc */     \
  X(Optimizer)         /* optimizers.cc */          \
  X(Pad)               /* pad.cc */                 \
  X(Pool)              /* pool.cc */                \
  X(QLinear)           /* qlinear.cc */             \
  X(QLinearConv)       /* qlinear_conv.cc */        \
  X(QLinearPool)       /* qlinear_pool.cc */        \
  X(QuantFunction)     /* quant_functions.cc */     \
  X(QuantizeLinear)    /* quantize_linear.cc */     \
  X(Random)            /* random.cc */              \
  X(Recurrent)         /* recurrent.cc */           \
  X(Reduce)            /* reduce.cc */              \
  X(Reshape)           /* reshape.cc */             \
  X(Resize)            /* resize.cc */              \
  X(RoiAlign)          /* roi_align.cc */           \
  X(Scatter)           /* scatter.cc */             \
  X(Selection)         /* selection.cc */           \
  X(Sequence)          /* sequence.cc */            \
  X(Slice)             /* slice.cc */               \
  X(Softmax)           /* softmax.cc */             \
  X(Spectrum)          /* spectrum.cc */            \
  X(String)            /* strings.cc */             \
  X(Svm)               /* svm.cc */                 \
  X(Table)             /* table.cc */               \
  X(TfIdf)             /* tfidf.cc */               \
  X(TopK)              /* top_k.cc */               \
  X(TransformerNorm)   /* transformer_norm.cc */    \
  X(Transpose)         /* transpose.cc */           \
  X(TreeEnsemble)      /* tree_ensemble.cc */       \
  X(ZipMap)            /* zip_map.cc */

namespace octet {

#define OCTET_DECLARE_FAMILY(Family) std::span<const OpDef> Family##Ops();
OCTET_OP_FAMILIES(OCTET_DECLARE_FAMILY)
#undef OCTET_DECLARE_FAMILY

}  // namespace octet
