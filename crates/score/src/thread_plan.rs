//! Distribution of processor threads over decoders and sessions.

use std::fmt;

use super::{Runtime, Workers};

/// Threads of decoders and sessions. Results do not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ThreadPlan {
    /// Threads that read and decode images; at least 1.
    pub decode_threads: usize,
    /// Sessions on each device; at least 1.
    pub sessions: usize,
    /// Threads inside each session; at least 1.
    pub intra_threads: usize,
}

/// Numbers of threads that the user sets; the rest follows from the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadRequest {
    /// `--decode-threads`.
    pub decode_threads: Option<usize>,
    /// `--sessions`.
    pub sessions: Option<usize>,
    /// `--intra-threads`.
    pub intra_threads: Option<usize>,
}

impl ThreadPlan {
    /// Distributes `threads` processor threads.
    ///
    /// By default, decoders get all threads, and so do all sessions together: idle threads wait,
    /// and the operating system schedules the rest. If only one of sessions and threads per session
    /// is given, the other one is set to use the whole processor.
    ///
    /// # Errors
    ///
    /// The embedded engine supports only one thread per session.
    pub fn new(runtime: Runtime, threads: usize, request: ThreadRequest) -> Result<Self, String> {
        let threads = threads.max(1);
        if runtime.is_tract() && request.intra_threads.is_some_and(|count| count > 1) {
            return Err(
                "the embedded engine runs each session on one thread; use --sessions".into(),
            );
        }
        let advised = runtime.workers(threads);
        let share = |count: usize| (threads / count.max(1)).max(1);
        let workers = match (request.sessions, request.intra_threads) {
            (Some(engines), Some(intra_threads)) => Workers {
                engines,
                intra_threads,
            },
            (Some(engines), None) if runtime.is_tract() => Workers { engines, ..advised },
            (Some(engines), None) => Workers {
                engines,
                intra_threads: share(engines),
            },
            (None, Some(_)) if runtime.is_tract() => advised,
            (None, Some(intra_threads)) => Workers {
                engines: share(intra_threads),
                intra_threads,
            },
            (None, None) => advised,
        };
        Ok(Self {
            decode_threads: request.decode_threads.unwrap_or(threads).max(1),
            sessions: workers.engines.max(1),
            intra_threads: workers.intra_threads.max(1),
        })
    }

    /// Returns the plan with all threads in one session, for single images.
    #[must_use]
    pub fn joined(self) -> Self {
        Self {
            sessions: 1,
            intra_threads: self.sessions * self.intra_threads,
            ..self
        }
    }
}

impl fmt::Display for ThreadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: usize, what: &str| {
            let s = if count == 1 { "" } else { "s" };
            format!("{count} {what}{s}")
        };
        write!(
            f,
            "{}, {} of {}",
            count(self.decode_threads, "decoding thread"),
            count(self.sessions, "session"),
            count(self.intra_threads, "thread")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RuntimeOptions;

    #[test]
    fn the_default_uses_all_processors() {
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let split = |numbers: [usize; 3]| {
            let [decode_threads, sessions, intra_threads] =
                numbers.map(|request| (request > 0).then_some(request));
            let request = ThreadRequest {
                decode_threads,
                sessions,
                intra_threads,
            };
            let split = ThreadPlan::new(runtime, 8, request);
            split.map(|s| [s.decode_threads, s.sessions, s.intra_threads])
        };
        // tract's sessions have one thread each.
        let tract = runtime.is_tract();
        let advised = if tract { [8, 8, 1] } else { [8, 2, 4] };
        assert_eq!(split([0, 0, 0]), Ok(advised));
        assert_eq!(split([3, 0, 0]), Ok([3, advised[1], advised[2]]));
        assert_eq!(split([0, 2, 0]), Ok([8, 2, if tract { 1 } else { 4 }]));
        assert_eq!(split([0, 20, 0]), Ok([8, 20, 1]));
        assert_eq!(split([1, 3, 1]), Ok([1, 3, 1]));
        let threads = split([0, 0, 4]);
        if tract {
            assert!(threads.unwrap_err().contains("--sessions"));
        } else {
            assert_eq!(threads, Ok([8, 2, 4]));
        }
    }

    #[test]
    fn plans_print_as_text() {
        let split = ThreadPlan {
            decode_threads: 4,
            sessions: 1,
            intra_threads: 2,
        };
        assert_eq!(
            split.to_string(),
            "4 decoding threads, 1 session of 2 threads"
        );
    }
}
