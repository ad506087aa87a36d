//! One run: processes and engines, a time with faults, and then as long as it takes until nothing is pending.

use std::sync::Arc;

use clap::Args;

use crate::{
    broker::Broker,
    buyers::{Buyer, Surroundings},
    checks::{self, Checks},
    database::Database,
    faults::{Coverage, Fault},
    gateway::Gateway,
    network::Network,
    operators::Operator,
    process::{Engines, Process},
    redis_double::RedisDouble,
    world::{Host, World},
};

/// The services of a process, its database, and how many such processes there are at most.
const PROCESSES: &[(&str, &str, usize)] = &[
    ("event", "event", 1),
    ("user,dead-letter", "user", 2),
    ("ticketing-api,ticketing-worker", "ticketing", 2),
    ("payment-api,payment-worker", "payment", 2),
];
const DATABASES: [&str; 4] = ["event", "user", "ticketing", "payment"];
/// Faults begin after the start.
const CALM_MILLIS: i64 = 3_000;
/// Faults of processes are drawn once in this time.
const PROCESS_FAULT_MILLIS: i64 = 500;
const STORM_MILLIS_MAX: i64 = 120_000;
const LATE_BUYERS: u64 = 3;
const CHECK_MILLIS: i64 = 200;
const REST_CHECK_MILLIS: i64 = 2_000;
/// Nothing may be pending later than this after the last fault.
const REST_MILLIS_MAX: i64 = 900_000;

/// What is run.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// The seed of the run, or of the first.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Faults end after so many steps.
    #[arg(long, default_value_t = 2_000)]
    pub steps: u64,
    #[arg(long, default_value_t = 14)]
    pub buyers: u64,
    /// Of each service, at most.
    #[arg(long, default_value_t = 2)]
    pub processes: usize,
    /// Kinds of faults that do not strike.
    #[arg(long)]
    pub without: Vec<Fault>,
    /// Prints each step.
    #[arg(long)]
    pub trace: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub hash: u64,
    pub steps: u64,
    /// Simulated time.
    pub millis: i64,
    pub failures: Vec<String>,
    pub last_steps: Vec<String>,
    pub coverage: Coverage,
    pub tickets: usize,
}

struct Run {
    world: Arc<World>,
    engines: Engines,
    processes: Vec<Process>,
    clients: Host,
    at: Surroundings,
    checks: Checks,
    check_at: i64,
}

/// Runs a plan in this process, whose first run it must be if the result is to depend on the seed alone.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let folder = tempfile::tempdir_in(memory_folder()).unwrap();
    let world = World::new(plan.seed, &plan.without, plan.trace);
    let mut run = Run::open(&world, plan, folder.path());
    run.storm(plan);
    let tickets = run.rest();
    let trace = world.trace();
    Outcome {
        hash: trace.hash,
        steps: trace.steps,
        millis: world.elapsed(),
        failures: world.failures(),
        last_steps: trace.last(),
        coverage: world.coverage(),
        tickets,
    }
}

/// A folder in memory, if the system has one.
fn memory_folder() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

impl Run {
    fn open(world: &Arc<World>, plan: &Plan, folder: &std::path::Path) -> Self {
        let host = Host::new(world);
        let tables = boxoffice::app::tables();
        let databases = DATABASES.map(|name| Database::open(world, name, folder, &tables));
        let broker = Broker::new(world, &databases);
        {
            let _turn = host.runtime.enter();
            broker.start();
        }
        let checks = Checks::new(world, &databases);
        let at = Surroundings {
            world: Arc::clone(world),
            network: Network::new(world),
            gateway: Gateway::new(world, host.runtime.handle()),
            knowledge: Arc::default(),
        };
        let reservations = *world.pick(&["redis", "redis", "local"]);
        let engines = Engines {
            databases: databases.to_vec(),
            broker,
            redis: RedisDouble::new(world),
            reservations,
            gateway: at.gateway.clone(),
            network: at.network.clone(),
            host,
        };
        let processes = PROCESSES.iter().flat_map(|(services, database, max)| {
            let is_alone = reservations == "local" && *database == "ticketing";
            let count = if is_alone {
                1
            } else {
                plan.processes.min(*max)
            };
            (1..=count).map(|number| Process::new(services, database, number))
        });
        Self {
            world: Arc::clone(world),
            engines,
            processes: processes.collect(),
            clients: Host::new(world),
            at,
            checks,
            check_at: 0,
        }
    }

    fn operator(&self) -> Operator {
        Operator {
            at: self.at.clone(),
            broker: Arc::clone(&self.engines.broker),
            databases: self.engines.databases.clone(),
        }
    }

    /// Runs every host for a turn, in a random order.
    fn tick(&mut self) {
        self.world.advance();
        let mut order: Vec<usize> = (0..self.processes.len() + 2).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, self.world.below(place as u64 + 1) as usize);
        }
        for number in order {
            match number.checked_sub(2) {
                Some(process) => self.processes[process].run(&self.world, &self.engines),
                None if number == 0 => self.engines.host.run(&self.world),
                None => self.clients.run(&self.world),
            }
        }
        if self.world.elapsed() >= self.check_at {
            self.check_at = self.world.elapsed() + CHECK_MILLIS;
            self.checks.hold_now();
        }
    }

    /// The sale, with faults.
    fn storm(&mut self, plan: &Plan) {
        let clients = self.clients.runtime.handle().clone();
        clients.spawn(self.operator().open_sales(self.world.between(1, 3)));
        while self.world.elapsed() < CALM_MILLIS {
            self.tick();
        }
        self.world.set_storms(true);
        for number in 0..plan.buyers {
            self.send_buyer(format!("buyer{number}"));
        }
        clients.spawn(self.operator().work());
        clients.spawn(self.operator().send_webhooks());
        clients.spawn(self.operator().write_records());
        let mut strike_at = 0;
        while self.goes_on(plan) {
            self.tick();
            if self.world.elapsed() >= strike_at {
                strike_at = self.world.elapsed() + PROCESS_FAULT_MILLIS;
                self.strike_processes();
            }
        }
        self.world.set_storms(false);
    }

    fn send_buyer(&self, name: String) {
        let at = self.at.clone();
        self.clients.runtime.spawn(Buyer { name, at }.act());
    }

    fn goes_on(&self, plan: &Plan) -> bool {
        self.world.trace().steps < plan.steps
            && self.world.elapsed() < STORM_MILLIS_MAX
            && self.world.failures().is_empty()
    }

    fn strike_processes(&mut self) {
        for process in &mut self.processes {
            let (world, name) = (&self.world, process.name.clone());
            if !process.is_running() {
                continue;
            }
            if world.strikes(Fault::ClockForward, &name) {
                process.move_clock(world.between(100, 120_000) as i64);
            }
            if world.strikes(Fault::ClockBack, &name) {
                let millis_max = *world.pick(&[60_000, 1_800_000]);
                process.move_clock(-(world.between(100, millis_max) as i64));
            }
            if world.strikes(Fault::Pause, &name) {
                process.paused_until = world.after(500, 25_000);
            }
            if world.strikes(Fault::Stop, &name) {
                process.stop();
            }
            if world.strikes(Fault::Crash, &name) {
                process.kill(world, &self.engines);
            }
        }
    }

    /// Of each service one process stays down: the others must end everything.
    fn leave_one_of_each(&mut self) {
        let names: Vec<_> = self.processes.iter().map(|it| it.name.clone()).collect();
        for (process, name) in self.processes.iter_mut().zip(names) {
            if name.ends_with("-2") {
                process.kill(&self.world, &self.engines);
                process.starts_at = i64::MAX;
            }
        }
        self.world.step("one process of each service stays down");
    }

    /// Runs on without faults until nothing is pending; returns the number of tickets.
    fn rest(&mut self) -> usize {
        if self.world.below(2) == 0 {
            self.leave_one_of_each();
        }
        let began_at = self.world.elapsed();
        // In some runs more buyers come when all is well again.
        let mut to_do = if self.world.below(4) == 0 { 2 } else { 1 };
        loop {
            let until = self.world.elapsed() + REST_CHECK_MILLIS;
            while self.world.elapsed() < until {
                self.tick();
            }
            if !self.world.failures().is_empty() {
                return 0;
            }
            let books = checks::read_all(&self.engines, &self.processes[2]);
            let pending = checks::pending(&self.engines, &books);
            let clients = self.clients.runtime.metrics().num_alive_tasks();
            if pending.is_empty() && clients == 0 && (to_do < 2 || self.world.is_quiet()) {
                match to_do {
                    0 => {
                        let knowledge = &self.at.knowledge;
                        checks::hold_at_rest(&self.world, &self.engines, &books, knowledge);
                        return books.tickets.len();
                    }
                    1 => drop(self.clients.runtime.spawn(self.operator().compare_stocks())),
                    _ => (0..LATE_BUYERS).for_each(|it| self.send_buyer(format!("late{it}"))),
                }
                to_do -= 1;
            }
            if self.world.elapsed() - began_at > REST_MILLIS_MAX {
                let what = format!("still pending: {pending:?}, {clients} clients");
                self.world.fail(what);
                return 0;
            }
            if clients == 0 {
                self.tend();
            }
        }
    }

    /// What people do at the end.
    fn tend(&self) {
        let operator = self.operator();
        self.clients.runtime.spawn(async move {
            let _ = operator.tend_dead_letters("end").await;
            let _ = operator.resume_parked().await;
        });
    }
}
