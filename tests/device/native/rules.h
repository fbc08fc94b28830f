// What CUDA refuses, what it waits for, and how many kernels it launches.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include "loan.h"

namespace {

using c10::IValue;

bool begins(const std::string& text, std::initializer_list<const char*> starts) {
  return std::any_of(starts.begin(), starts.end(), [&](const char* start) { return text.rfind(start, 0) == 0; });
}
bool takes_indices(const std::string& name) {
  return begins(name, {"aten::index.", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index"});
}

// CUDA takes CPU scalars in pointwise operations, and CPU indices where something is indexed; nothing else.
void refuse_two_devices(const c10::OperatorHandle& op, const std::string& name, const std::vector<Tensor>& tensors,
                        const std::vector<Tensor>& indices) {
  auto first = std::find_if(tensors.begin(), tensors.end(), is_pretend);
  if (first == tensors.end()) return;
  bool scalars = op.hasTag(at::Tag::pointwise) || begins(name, {"aten::_foreach"}) || takes_indices(name);
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.device() == first->device()) continue;
    bool indexes = std::any_of(indices.begin(), indices.end(), [&](auto& one) { return one.is_same(tensor); });
    bool allowed = tensor.device().is_cpu() && ((tensor.dim() == 0 && scalars) || (indexes && takes_indices(name)));
    TORCH_CHECK(allowed, "Expected all tensors to be on the same device, but found at least two devices, ",
                first->device(), " and ", tensor.device(), ", in ", name);
  }
}

bool shape_depends_on_values(const std::string& name, const std::vector<Tensor>& indices) {
  bool masked = std::any_of(indices.begin(), indices.end(),
                            [](auto& one) { return is_pretend(one) && one.scalar_type() == at::kBool; });
  return masked || begins(name, {"aten::nonzero", "aten::masked_select", "aten::unique", "aten::_unique",
                                 "aten::bincount", "aten::equal", "aten::repeat_interleave.Tensor"});
}

bool same_layout(const Tensor& one, const Tensor& other) {
  if (one.sizes() != other.sizes() || !one.is_non_overlapping_and_dense()) return false;
  for (int64_t axis = 0; axis < one.dim(); ++axis)
    if (one.size(axis) != 1 && one.stride(axis) != other.stride(axis)) return false;
  return true;
}

// The fast kernels of CUDA take lists of tensors of equal layout; others are computed tensor by tensor.
long kernels(const std::string& name, const std::vector<IValue>& given) {
  if (!begins(name, {"aten::_foreach"})) return 1;
  std::vector<std::vector<Tensor>> lists;
  for (const IValue& value : given) if (value.isTensorList()) lists.push_back(value.toTensorVector());
  for (const auto& list : lists)
    for (size_t place = 0; place < list.size(); ++place)
      if (list.size() != lists[0].size() || !same_layout(list[place], lists[0][place]))
        return static_cast<long>(lists[0].size());
  return 1;
}

}  // namespace
