//! A connection to PostgreSQL that can be cut right before or after the `COMMIT` of a transaction.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What happens to the next `COMMIT` that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It arrives, but its answer does not.
    BehindCommit,
    /// It does not arrive.
    BeforeCommit,
    /// Nothing passes from the next statement on.
    BeforeAnything,
}

#[derive(Debug, Default)]
struct Plan {
    next: Option<Cut>,
    /// Whether the line stays cut then, until it is mended.
    for_long: bool,
    is_down: bool,
}

/// Passes until it is cut.
pub struct Line {
    plan: Arc<Mutex<Plan>>,
    pub url: String,
}

impl Line {
    /// A line to the server of this URL.
    pub async fn lay(server_url: &str) -> Self {
        let plan = Arc::new(Mutex::new(Plan::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let server: tokio_postgres::Config = server_url.parse().unwrap();
        let there = format!("127.0.0.1:{}", server.get_ports()[0]);
        let url = server_url.replace(&there, &here.to_string());
        let plans = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (plan, there) = (Arc::clone(&plans), there.clone());
                tokio::spawn(async move { carry(client, &there, &plan).await });
            }
        });
        Self { plan, url }
    }

    /// Cut once; whoever connects again passes.
    pub fn cut_next(&self, cut: Cut) {
        self.plan.lock().unwrap().next = Some(cut);
    }

    /// Cut, and nobody passes until it is mended.
    pub fn cut_for_long(&self, cut: Cut) {
        let mut plan = self.plan.lock().unwrap();
        (plan.next, plan.for_long) = (Some(cut), true);
    }

    pub fn mend(&self) {
        let mut plan = self.plan.lock().unwrap();
        (plan.for_long, plan.is_down) = (false, false);
    }

    /// Whether what was to be cut has been.
    pub fn was_cut(&self) -> bool {
        self.plan.lock().unwrap().next.is_none()
    }
}

/// Carries bytes both ways until an end goes away or the line is cut.
async fn carry(mut client: TcpStream, there: &str, plan: &Mutex<Plan>) {
    if plan.lock().unwrap().is_down {
        return;
    }
    let mut server = TcpStream::connect(there).await.unwrap();
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_cut_behind = false;
    loop {
        tokio::select! {
            sent = client.read(&mut up) => {
                let Ok(sent @ 1..) = sent else { return };
                let due = due(plan, &up[..sent]);
                if matches!(due, Some(Cut::BeforeCommit | Cut::BeforeAnything)) {
                    return;
                }
                server.write_all(&up[..sent]).await.unwrap();
                is_cut_behind |= due == Some(Cut::BehindCommit);
            }
            answered = server.read(&mut down) => {
                let Ok(answered @ 1..) = answered else { return };
                // The answer to the commit: it has happened, and nobody hears of it.
                if is_cut_behind || client.write_all(&down[..answered]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What is to be done to what was sent.
fn due(plan: &Mutex<Plan>, sent: &[u8]) -> Option<Cut> {
    let is_commit = sent.windows(6).any(|word| word == b"COMMIT");
    let mut plan = plan.lock().unwrap();
    let is_due = is_commit || plan.next == Some(Cut::BeforeAnything);
    let due = is_due.then(|| plan.next.take()).flatten();
    plan.is_down |= due.is_some() && plan.for_long;
    due
}
