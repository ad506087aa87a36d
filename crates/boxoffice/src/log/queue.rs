//! The queue between the log's callers and standard error, written by a thread: a stalled reader blocks no caller, and a
//! closed pipe or a full disk fails none. Lines that cannot be queued or written are lost and counted. It owns the queue
//! and the thread.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

/// The capacity of the queue in bytes; further lines are lost.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// How long a flush waits.
const FLUSH_MILLIS_MAX: u64 = 1_000;

enum Job {
    Write(Vec<u8>),
    /// Answered once all lines before it are written.
    Flush(mpsc::Sender<()>),
}

/// The callers' end. Writing to it never fails and never waits.
#[derive(Debug)]
pub(super) struct LineQueue {
    jobs: mpsc::Sender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: Counter,
}

impl LineQueue {
    /// Starts the thread that writes to `target`.
    pub(super) fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (waiting_bytes, lost) = (Arc::new(AtomicUsize::new(0)), Counter::default());
        let writer = Writer {
            target,
            queue,
            waiting_bytes: Arc::clone(&waiting_bytes),
            lost: lost.clone(),
            reported: 0,
        };
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            jobs,
            waiting_bytes,
            lost,
        })
    }

    /// The counter of lost lines.
    pub(super) fn lost(&self) -> Counter {
        self.lost.clone()
    }

    /// Waits until the queued lines are written, at most [`FLUSH_MILLIS_MAX`].
    pub(super) fn flush(&self) {
        let (reply, flushed) = mpsc::channel();
        if self.jobs.send(Job::Flush(reply)).is_ok() {
            let _ = flushed.recv_timeout(Duration::from_millis(FLUSH_MILLIS_MAX));
        }
    }
}

impl Write for &LineQueue {
    /// One call is one line: the formatter writes each line by a single call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len();
        let before = self.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        let is_taken = before + length <= WAITING_BYTES_MAX
            && self.jobs.send(Job::Write(line.to_vec())).is_ok();
        if !is_taken {
            self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.lost.inc();
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W> {
    target: W,
    queue: mpsc::Receiver<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: Counter,
    /// How many lost lines the log has reported.
    reported: u64,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        while let Ok(job) = self.queue.recv() {
            match job {
                Job::Write(line) => self.write(&line),
                // The caller may have timed out.
                Job::Flush(reply) => _ = reply.send(()),
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        let written = self.target.write_all(line);
        self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if written.is_err() {
            self.lost.inc();
            return;
        }
        let lost = self.lost.get();
        if lost > self.reported {
            let lines = lost - self.reported;
            self.reported = lost;
            tracing::warn!(
                lines,
                "log lines are lost: standard error did not take them in time"
            );
        }
    }
}

/// Prints a line on standard output; a closed pipe is ignored.
pub fn print_line(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line on standard error outside the log; a stalled reader delays it at most [`FLUSH_MILLIS_MAX`].
pub fn print_error(line: impl std::fmt::Display) {
    let line = format!("boxoffice: {line}\n");
    if let Ok(lines) = LineQueue::to(io::stderr()) {
        let _ = (&lines).write(line.as_bytes());
        lines.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Blocks while `taken` is locked, and fails while `is_full` is 1.
    #[derive(Clone, Default)]
    struct Target {
        taken: Arc<Mutex<Vec<u8>>>,
        is_full: Arc<AtomicUsize>,
    }

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full.load(Ordering::SeqCst) == 1 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.taken.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_loses_lines_and_blocks_no_caller() {
        let target = Target::default();
        let lines = LineQueue::to(target.clone()).unwrap();
        let line = [b'x'; 1024];
        {
            // The writer thread blocks.
            let _stalled = target.taken.lock().unwrap();
            for _ in 0..2 * 1024 {
                (&lines).write_all(&line).unwrap();
            }
        }
        lines.flush();
        let taken = target.taken.lock().unwrap().len() as u64 / 1024;
        assert!((1023..=1025).contains(&taken), "{taken}");
        assert_eq!(taken + lines.lost().get(), 2 * 1024);
    }

    #[test]
    fn a_full_disk_loses_lines_until_it_has_space() {
        let target = Target::default();
        let lines = LineQueue::to(target.clone()).unwrap();
        target.is_full.store(1, Ordering::SeqCst);
        (&lines).write_all(b"lost\n").unwrap();
        lines.flush();
        target.is_full.store(0, Ordering::SeqCst);
        (&lines).write_all(b"kept\n").unwrap();
        lines.flush();
        assert_eq!(target.taken.lock().unwrap().as_slice(), b"kept\n");
        assert_eq!(lines.lost().get(), 1);
    }
}
