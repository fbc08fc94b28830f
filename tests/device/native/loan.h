// Borrowing: the same bytes as a tensor of the other kind.
#pragma once
#include "device.h"

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

bool is_pretend(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == PRETEND; }

c10::Storage borrowed(const c10::Storage& from, c10::Device to) {
  c10::Allocator* own = to.is_cpu() ? c10::GetCPUAllocator() : &allocator;
  c10::DataPtr bytes(from.mutable_data(), new c10::Storage(from),
                     [](void* kept) { delete static_cast<c10::Storage*>(kept); }, to);
  return {c10::Storage::use_byte_size_t(), from.nbytes(), std::move(bytes), own, true};
}
Tensor placed_on(const Tensor& shaped_as, c10::Storage storage, c10::DispatchKeySet key) {
  Tensor made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), key, shaped_as.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(shaped_as.sizes(), shaped_as.strides());
  made.unsafeGetTensorImpl()->set_storage_offset(shaped_as.storage_offset());
  return made;
}

// The tensors of one operation, and the CPU tensors that stand for them while it runs.
class Loan {
 public:
  std::optional<c10::Device> device;

  Tensor lend(const Tensor& tensor) {
    if (!is_pretend(tensor)) return tensor;
    for (auto& [owner, guest] : lent_)
      if (owner.is_same(tensor)) return guest;
    if (!device) device = tensor.device();
    lent_.emplace_back(tensor, placed_on(tensor, borrowed(tensor.storage(), c10::kCPU), CPU_KEY));
    return lent_.back().second;
  }
  OptionalTensor lend(const OptionalTensor& tensor) { return tensor ? OptionalTensor(lend(*tensor)) : tensor; }

  // A result of the CPU's kernel: an argument itself, a view of one, or new.
  Tensor take(const Tensor& result) const {
    if (!result.defined() || !result.device().is_cpu()) return result;
    for (auto& [owner, guest] : lent_) {
      if (guest.is_same(result)) return owner;
      if (result.storage().data() && result.storage().data() == guest.storage().data())
        return placed_on(result, owner.storage(), PRETEND_KEY);
    }
    return placed_on(result, borrowed(result.storage(), numbered(device)), PRETEND_KEY);
  }

  // An argument such as out= may have been resized, or given new bytes.
  void settle() const {
    for (auto& [owner, guest] : lent_) {
      c10::TensorImpl* impl = owner.unsafeGetTensorImpl();
      if (owner.storage().data() != guest.storage().data())
        impl->set_storage_keep_dtype(borrowed(guest.storage(), owner.device()));
      if (owner.sizes() != guest.sizes() || owner.strides() != guest.strides())
        impl->set_sizes_and_strides(guest.sizes(), guest.strides());
    }
  }

 private:
  std::vector<std::pair<Tensor, Tensor>> lent_;
};

}  // namespace
