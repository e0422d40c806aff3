#include "server/rpc/infer_stream.h"

#include <utility>

#include "engine/tensor/status.h"
#include "server/rpc/call_deadline.h"
#include "server/rpc/call_metadata.h"
#include "server/rpc/grpc_status.h"

namespace octet {

InferStream* InferStream::Start(const ServingParts& parts, const GrpcServerOptions& options,
                                grpc::CallbackServerContext& context,
                                LiveSet<InferStream>& streams) {
  const std::shared_ptr<InferStream> stream(
      new InferStream(parts, options, context, streams));  // the constructor is private
  stream->self_ = stream;
  const absl::Status open = streams.Add(stream);
  stream->Advance([&] {
    stream->ending_ |= !open.ok();
    if (!open.ok()) stream->end_ = open;
  });
  return stream.get();
}

template <typename Change>
void InferStream::Advance(Change change) {
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    change();
    next = Decide();
    if (next.starts()) ++starting_;
  }
  while (next.starts()) {
    if (next.read != nullptr) StartRead(next.read);
    if (next.write != nullptr) StartWrite(next.write);
    absl::MutexLock lock(&mutex_);
    --starting_;
    next = Decide();
    if (next.starts()) ++starting_;
  }
  // The last thing: this object may be gone when it returns.
  if (next.finish) Finish(*next.finish);
}

void InferStream::End() {
  Advance([this] { ending_ = true; });
}

void InferStream::OnReadDone(bool ok) {
  Item* item = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    if (ok && !finished_ && !broken_) {
      item = items_.emplace_back(std::move(incoming_)).get();
    } else {
      incoming_.reset();
      half_closed_ = !ok;
    }
  }
  // The item stays: it leaves only when it has been answered.
  if (item != nullptr) {
    const absl::Status read = ReadInferRequest(
        item->request, static_cast<size_t>(options_.max_message_bytes), *item->call);
    item->request.Clear();
    {
      absl::MutexLock lock(&mutex_);
      Hold(*item, item->call->HeldBytes());
    }
    item->inference.Start({.metadata = CallMetadata(context_.client_metadata()),
                           .deadline = DeadlineOf(context_, parts_.clock),
                           .read = read,
                           .raw_contents = item->call->raw_contents},
                          [this, item](const absl::Status& status) { Answered(*item, status); });
  }
  Advance([this] { reading_ = false; });
}

void InferStream::Answered(Item& item, absl::Status status) {
  if (status.ok()) {
    auto written = WriteStreamResponse(item.call);
    status = written.status();
    if (written.ok()) item.response.Swap(&*written);
  }
  if (!status.ok()) {
    item.response = WriteStreamError(item.call->request.id(), ToGrpc(status).error_message());
  }
  Advance([&] {
    item.answered = true;
    Hold(item, item.response.Length());
  });
}

void InferStream::OnWriteDone(bool ok) {
  Advance([&] {
    writing_ = false;
    PopFront();
    if (!ok) broken_ = true;
  });
}

void InferStream::OnCancel() {
  Advance([&] {
    broken_ = true;
    for (const auto& item : items_) item->inference.Cancel();
  });
}

void InferStream::OnDone() {
  const std::shared_ptr<InferStream> self = std::move(self_);
  streams_.Remove(self);
}

void InferStream::Hold(Item& item, size_t bytes) {
  item.bytes += bytes;
  held_ += bytes;
}

void InferStream::PopFront() {
  held_ -= items_.front()->bytes;
  items_.pop_front();
}

InferStream::Next InferStream::Decide() {
  Next next;
  if (finished_) return next;
  if (broken_ && !writing_) {
    // Nobody reads the answers; those that have not come must be waited for all the same.
    while (!items_.empty() && items_.front()->answered) PopFront();
  }
  const bool reads = !half_closed_ && !ending_ && !broken_;
  if (reads && !reading_ && items_.size() < kWindow && held_ <= kMostHeld) {
    reading_ = true;
    incoming_ = std::make_unique<Item>(parts_, options_.access_log);
    next.read = &incoming_->request;
  }
  if (!writing_ && !broken_ && !items_.empty() && items_.front()->answered) {
    writing_ = true;
    next.write = &items_.front()->response;
  }
  if (!reads && items_.empty() && !writing_ && starting_ == 0) {
    finished_ = true;
    if (broken_) {
      next.finish = grpc::Status(grpc::StatusCode::CANCELLED, "the client has gone");
    } else if (ending_ && !half_closed_) {
      next.finish = ToGrpc(end_);
    } else {
      next.finish = grpc::Status::OK;
    }
  }
  return next;
}

}  // namespace octet
