//! Lines of the log on their way to standard error. The caller hands its line over and goes on: a thread writes it. So a
//! reader that stalls holds up nothing, and a pipe that was closed or a disk that is full fails nothing; lines that
//! cannot be written are lost, and counted. State: the lines that wait, and the thread.

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

/// Bytes that may wait to be written; a line beyond them is lost.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// How long the end of the process waits for what is still to be written.
const FLUSH_MILLIS_MAX: u64 = 1_000;

enum Job {
    Write(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(mpsc::Sender<()>),
}

/// Takes lines from the callers. Writing to it never fails and never waits.
#[derive(Debug)]
pub(super) struct Lines {
    jobs: mpsc::Sender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: Counter,
}

impl Lines {
    /// Starts the thread that writes to `target`.
    pub(super) fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (waiting_bytes, lost) = (Arc::new(AtomicUsize::new(0)), Counter::default());
        let writer = Writer {
            target,
            queue,
            waiting_bytes: Arc::clone(&waiting_bytes),
            lost: lost.clone(),
            told: 0,
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

    /// Counts the lines that were lost.
    pub(super) fn lost(&self) -> Counter {
        self.lost.clone()
    }

    /// Waits for what was handed over to be written, for a moment at most.
    pub(super) fn flush(&self) {
        let (reply, flushed) = mpsc::channel();
        if self.jobs.send(Job::Flush(reply)).is_ok() {
            let _ = flushed.recv_timeout(Duration::from_millis(FLUSH_MILLIS_MAX));
        }
    }
}

impl Write for &Lines {
    /// One call is one line: the formatter writes it whole.
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
    /// How many lost lines the log has told of.
    told: u64,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        while let Ok(job) = self.queue.recv() {
            match job {
                Job::Write(line) => self.write(&line),
                // Who asked may have gone.
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
        if lost > self.told {
            let lines = lost - self.told;
            self.told = lost;
            tracing::warn!(lines, "lines of the log could not be written and are lost");
        }
    }
}

/// A line on standard output, if anybody reads it.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A line on standard error outside the log; waits a moment for a reader that stalls.
pub fn complain(line: impl std::fmt::Display) {
    let line = format!("boxoffice: {line}\n");
    if let Ok(lines) = Lines::to(io::stderr()) {
        let _ = (&lines).write(line.as_bytes());
        lines.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes lines as long as its gate lets it, and fails while it is full.
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
    fn a_reader_that_stalls_costs_lines_and_never_time() {
        let target = Target::default();
        let lines = Lines::to(target.clone()).unwrap();
        let line = [b'x'; 1024];
        {
            // Nothing is read.
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
    fn a_full_disk_loses_lines_until_there_is_room() {
        let target = Target::default();
        let lines = Lines::to(target.clone()).unwrap();
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
