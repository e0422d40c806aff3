// Many connections, few threads: who waits for a client, and for how long.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "httplib.h"

#include "server/http/connection.h"
#include "server/scheduling/gate.h"

namespace octet {

/// cpp-httplib's server with another way to share its threads. The library ties a thread to a
/// connection until that is closed, so that a few idle clients keep everybody out. Here a connection
/// without a request waits in epoll(7) and costs no thread:
///
///     accepted --> parked --head of a request complete--> a thread reads the body, answers --> parked
///                    +--kHeadTime, or idle for kIdleTime, or the place is needed--> closed
///
/// - `threads` requests are under way at once. Each thread that is free waits in epoll(7) itself: it answers what it sees, and
///   nothing is handed over. While none is free one more thread watches, and puts requests into a queue, from which threads
///   take before they look for others. A request that does not come within kRequestTime, or is silent for
///   Connection::kSilence, is given up, with its connection; so is one whose answer is not taken within kRequestTime from
///   its first byte on.
/// - Health probes (GET /v2/health/..., without a body) are answered by who sees them first, be it the thread that watches:
///   no load, slow body or long inference stands before them, and no client that does not read: an answer that its socket
///   does not take at once ends the connection.
/// - `connections` at once; for a request beyond them those that are parked longest are closed, and it is answered
///   503 when none is; for probes kProbePlaces are kept free.
/// - A client that is answered while it still sends would find a reset connection, perhaps instead of its answer. It is told
///   that nothing more comes, and what it sends is thrown away until it closes, for kLeavingTime at most. There are
///   kLeavingPlaces for such connections beside the others; a new one takes that of the oldest. None is left when it stops.
/// - While the system has no descriptor or memory for another connection, that is logged, once, and tried again.
class ConnectionServer final : public httplib::Server {
 public:
  static constexpr std::chrono::seconds kHeadTime{10};
  static constexpr std::chrono::seconds kIdleTime{75};
  static constexpr std::chrono::seconds kRequestTime{60};
  static constexpr std::chrono::seconds kLeavingTime{2};
  static constexpr size_t kProbePlaces = 16;
  static constexpr size_t kLeavingPlaces = 256;

  struct Limits {
    size_t threads = 1;
    size_t connections = 1;
  };

  /// Once the gate is announced to close, answers say that their connection ends: clients come back over the balancer.
  ConnectionServer(Limits limits, const Gate& gate, Clock& clock);
  /// Requires: Stop.
  ~ConnectionServer() override;

  /// Serves on the port that was bound, with threads of its own.
  void Run();
  /// Closes the port and the parked connections; returns when every request under way is answered. Whose client has not
  /// taken its answer at `deadline` is cut off. Returns whether none was. May be called again.
  bool Stop(TimePoint deadline);

  /// The connection whose request this thread is answering. Requires: inside a handler.
  static Connection& current();
  /// This request's body was read to its end: the connection can be used again.
  static void BodyIsRead();
  /// This request has a body that was not read to its end.
  static bool BodyIsUnread();
  /// Stop was called: a body that has not come is not read any more.
  static bool IsStopping();
  /// This request's Content-Encoding in small letters, "" without one; several are told by commas. It is no header any more.
  static std::string_view BodyCoding();
  /// This request is inside a gate until its answer has been taken, or its connection has ended. The thread keeps the pass.
  static void KeepInside(Gate::Pass pass);

 private:
  struct Entry {
    std::shared_ptr<Connection> connection;
    bool parked = false;
    TimePoint since;     ///< Parked.
    TimePoint deadline;  ///< While parked.
  };
  struct Leaving {
    std::shared_ptr<Connection> connection;
    TimePoint deadline;
  };

  /// Waits for clients, until stopped.
  void Accept();
  /// Says whether accept(2) goes on; waits when it failed.
  bool GoesOn(int error, bool& failing);
  void Add(int fd);
  void Park(int fd, TimePoint deadline);
  /// Takes a parked connection for the caller alone; null when there is none.
  std::shared_ptr<Connection> Take(int fd, TimePoint& deadline);
  void Close(int fd);
  /// Closes the connection parked longest; false when none is.
  bool CloseOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseExpired();
  /// Sends the answer and lets the client go.
  void Refuse(const std::shared_ptr<Connection>& connection, std::string_view answer);
  /// Nothing more is said to the client, which may still be sending.
  void Leave(const std::shared_ptr<Connection>& connection);
  /// Throws away what one that leaves has sent, if it is one of these.
  void Drain(int fd);
  /// Waits for connections that have something to say while no thread is free, and for old ones, until stopped.
  void Watch();
  /// Answers requests until stopped, and what waits then.
  void ServeRequests();
  /// The next request whose head is there; null once the server is stopped and none waits.
  std::shared_ptr<Connection> Next();
  /// Puts a request behind those that wait for a thread; true when one is in epoll(7) and is to be told.
  bool Wait(std::shared_ptr<Connection> connection);
  bool AnyIdle() const;
  /// What became of a connection that has something to say: it itself when it is a request for the caller.
  std::shared_ptr<Connection> LookAt(int fd);
  /// Reads what is there; true when it is a request for the caller. Otherwise it waits, until `deadline` while nothing comes, or
  /// is closed.
  bool ReadHead(const std::shared_ptr<Connection>& connection, TimePoint deadline);
  /// The head is there; false when the request was refused.
  bool Admit(const std::shared_ptr<Connection>& connection);
  /// Answers; true when the next request is there.
  bool Serve(const std::shared_ptr<Connection>& connection);

  const Limits limits_;
  const Gate& gate_;
  Clock& clock_;
  const int epoll_;
  // Of eventfd(2):
  const int wake_;      ///< Stop watching and accepting.
  const int all_busy_;  ///< No thread is in epoll(7) any more.
  const int waits_;     ///< A request was put into the queue while one was.
  mutable absl::Mutex mutex_;
  std::map<int, Entry> connections_ ABSL_GUARDED_BY(mutex_);                 ///< By descriptor.
  std::deque<Leaving> leaving_ ABSL_GUARDED_BY(mutex_);                      ///< The oldest first.
  std::deque<std::shared_ptr<Connection>> waiting_ ABSL_GUARDED_BY(mutex_);  ///< For a thread.
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;      ///< Threads in epoll(7), the watcher aside.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  ///< Nothing more is seen.
  std::atomic<bool> stopping_{false};
  std::vector<std::jthread> servers_;
  std::jthread watcher_;
  std::jthread listener_;
};

}  // namespace octet
