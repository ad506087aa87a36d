//! The world of the search: sagas under way, their participants, and the messages between them.

use std::collections::BTreeSet;

use saga::{Command, Definition, Direction, Input, Outcome, Pending, Saga, start, step};
use stateright::{Model, Property};

use super::participant::{Memory, Participant};

/// What is searched: which sagas run at the same time, and how much goes wrong.
pub struct Town {
    pub definitions: Vec<&'static Definition>,
    pub trouble: Trouble,
    pub memory: Memory,
    /// How often a person sends a parked saga on.
    pub resumes: u8,
}

/// How the network and the clock behave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A message once sent may arrive at any later time, any number of times, or never. Any timer may fire at
    /// any time, due or stale. A saga may be aborted whenever it likes.
    Unlimited,
    /// So many times in all: a message is lost, arrives again, is refused to be undone, a timer fires while the
    /// answer is under way, or a saga is aborted. What is sent still arrives in any order.
    Faults(u8),
}

/// Everything that is, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub runs: Vec<Run>,
    faults_left: u8,
    resumes_left: u8,
    /// Set when a turn did what no turn may do.
    pub broken: Option<&'static str>,
}

/// One saga, as its coordinator stored it, and everybody it deals with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    pub saga: Saga,
    pub timer: Option<Pending>,
    /// One for each step of the definition.
    pub participants: Vec<Participant>,
    /// Sent and under way.
    waiting: BTreeSet<Message>,
    /// Delivered or lost, and able to come back.
    past: BTreeSet<Message>,
}

/// Attempts of the same message are told apart by no participant, so the world does not either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    Ask {
        step: usize,
        direction: Direction,
    },
    Answer {
        step: usize,
        direction: Direction,
        proceeds: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deliver {
        run: usize,
        message: Message,
    },
    /// Delivers a request that the participant, if it is free to choose, refuses.
    DeliverToRefuse {
        run: usize,
        message: Message,
    },
    Lose {
        run: usize,
        message: Message,
    },
    Fire {
        run: usize,
        timer: Pending,
    },
    Abort {
        run: usize,
    },
    Resume {
        run: usize,
    },
}

/// More attempts than any saga here makes without being resumed twice.
const ATTEMPTS_MAX: u32 = 4;

impl Model for Town {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let run = |definition: &&'static Definition| {
            let (saga, commands) = start(definition);
            let mut run = Run {
                saga,
                timer: None,
                participants: vec![Participant::default(); definition.steps.len()],
                waiting: BTreeSet::new(),
                past: BTreeSet::new(),
            };
            run.perform(commands, self.trouble);
            run
        };
        let faults_left = match self.trouble {
            Trouble::Unlimited => 0,
            Trouble::Faults(faults) => faults,
        };
        let runs = self.definitions.iter().map(run).collect();
        vec![World {
            runs,
            faults_left,
            resumes_left: self.resumes,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let may_fault = self.may_fault(world);
        for (at, run) in world.runs.iter().enumerate() {
            for message in &run.waiting {
                run.deliveries(at, *message, may_fault, actions);
            }
            if may_fault {
                for message in &run.past {
                    run.deliveries(at, *message, may_fault, actions);
                }
                if self.trouble != Trouble::Unlimited {
                    actions.extend(run.waiting.iter().map(|message| Action::Lose {
                        run: at,
                        message: *message,
                    }));
                }
                actions.push(Action::Abort { run: at });
            }
            // With nothing under way, time passes by itself; before that, a timer is early.
            if let Some(timer) = run.timer
                && (may_fault || run.waiting.is_empty())
            {
                actions.push(Action::Fire { run: at, timer });
            }
            if self.trouble == Trouble::Unlimited {
                let stale = run.stale_timers(self.definitions[at]);
                actions.extend(stale.map(|timer| Action::Fire { run: at, timer }));
            }
            if world.resumes_left > 0 && run.saga.is_parked() {
                actions.push(Action::Resume { run: at });
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        let is_fault = world.is_fault(action);
        match action {
            Action::Deliver { run, message } => self.deliver(&mut world, run, message, false),
            Action::DeliverToRefuse { run, message } => {
                self.deliver(&mut world, run, message, true)
            }
            Action::Lose { run, message } => world.runs[run].put_aside(message),
            Action::Fire {
                run,
                timer:
                    Pending {
                        step,
                        direction,
                        attempt,
                    },
            } => {
                self.coordinate(
                    &mut world,
                    run,
                    Input::Timeout {
                        step,
                        direction,
                        attempt,
                    },
                );
            }
            Action::Abort { run } => self.coordinate(
                &mut world,
                run,
                Input::Abort {
                    reason: String::new(),
                },
            ),
            Action::Resume { run } => {
                world.resumes_left -= 1;
                self.coordinate(&mut world, run, Input::Resume);
            }
        }
        if world == *before {
            return None;
        }
        if let Trouble::Faults(_) = self.trouble {
            world.faults_left -= u8::from(is_fault);
            world.forget_what_cannot_return();
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::promises()
            .into_iter()
            .chain(super::possibilities())
            .collect()
    }
}

impl Town {
    pub fn runs<'a>(
        &'a self,
        world: &'a World,
    ) -> impl Iterator<Item = (&'static Definition, &'a Run)> {
        self.definitions.iter().copied().zip(&world.runs)
    }

    fn may_fault(&self, world: &World) -> bool {
        self.trouble == Trouble::Unlimited || world.faults_left > 0
    }

    fn deliver(&self, world: &mut World, at: usize, message: Message, refuse: bool) {
        let run = &mut world.runs[at];
        run.put_aside(message);
        match message {
            Message::Ask { step, direction } => {
                let proceeds = run.participants[step].handle(direction, refuse, self.memory);
                run.send(
                    Message::Answer {
                        step,
                        direction,
                        proceeds,
                    },
                    self.trouble,
                );
            }
            Message::Answer {
                step,
                direction,
                proceeds,
            } => {
                let refusal = || Outcome::Refuse {
                    reason: String::new(),
                };
                let outcome = if proceeds {
                    Outcome::Proceed
                } else {
                    refusal()
                };
                self.coordinate(
                    world,
                    at,
                    Input::Reply {
                        step,
                        direction,
                        outcome,
                    },
                );
            }
        }
    }

    /// The production machine takes its turn; saga, messages and timer are one commit.
    fn coordinate(&self, world: &mut World, at: usize, input: Input) {
        let run = &mut world.runs[at];
        let is_stale = |timer: &Option<Pending>| match &input {
            Input::Timeout {
                step,
                direction,
                attempt,
            } => {
                *timer
                    != Some(Pending {
                        step: *step,
                        direction: *direction,
                        attempt: *attempt,
                    })
            }
            Input::Reply { .. } | Input::Abort { .. } | Input::Resume => false,
        };
        let must_stay = run.saga.is_terminal() || is_stale(&run.timer);
        let (saga, commands) =
            step(self.definitions[at], &run.saga, input).expect("inputs fit their definition");
        if must_stay && (saga != run.saga || !commands.is_empty()) {
            world.broken = Some("a turn came of what may change nothing");
        }
        run.saga = saga;
        run.perform(commands, self.trouble);
    }
}

impl World {
    fn is_fault(&self, action: Action) -> bool {
        match action {
            Action::Deliver { run, message } => !self.runs[run].waiting.contains(&message),
            Action::DeliverToRefuse { run, message } => {
                let undoing = matches!(
                    message,
                    Message::Ask {
                        direction: Direction::Compensation,
                        ..
                    }
                );
                undoing || !self.runs[run].waiting.contains(&message)
            }
            Action::Fire { run, .. } => !self.runs[run].waiting.is_empty(),
            Action::Lose { .. } | Action::Abort { .. } => true,
            Action::Resume { .. } => false,
        }
    }

    /// Without a fault left, no message of the past can be delivered again: worlds that differ in it are one.
    fn forget_what_cannot_return(&mut self) {
        if self.faults_left == 0 {
            self.runs.iter_mut().for_each(|run| run.past.clear());
        }
    }
}

impl Run {
    /// The steps whose effect stands though they could be undone.
    pub fn standing(&self, definition: &'static Definition) -> impl Iterator<Item = usize> {
        let can_be_undone = |(_, (step, participant)): &(usize, (&saga::Step, &Participant))| {
            step.compensation.is_some() && participant.taken
        };
        definition
            .steps
            .iter()
            .zip(&self.participants)
            .enumerate()
            .filter(can_be_undone)
            .map(|(at, _)| at)
    }

    pub fn is_at_rest(&self) -> bool {
        self.saga.is_terminal() || self.saga.is_parked()
    }

    fn deliveries(&self, run: usize, message: Message, may_fault: bool, actions: &mut Vec<Action>) {
        actions.push(Action::Deliver { run, message });
        match message {
            Message::Ask {
                direction: Direction::Request,
                ..
            } => {
                actions.push(Action::DeliverToRefuse { run, message });
            }
            Message::Ask {
                direction: Direction::Compensation,
                ..
            } if may_fault => {
                actions.push(Action::DeliverToRefuse { run, message });
            }
            Message::Ask {
                direction: Direction::Compensation,
                ..
            }
            | Message::Answer { .. } => {}
        }
    }

    /// Every timer that was ever set, or might be one day, but for the one that is set.
    fn stale_timers(&self, definition: &'static Definition) -> impl Iterator<Item = Pending> {
        let of_step = |(step, direction)| {
            (1..=ATTEMPTS_MAX).map(move |attempt| Pending {
                step,
                direction,
                attempt,
            })
        };
        let requests = (0..definition.steps.len()).map(|step| (step, Direction::Request));
        let undoings = (0..definition.steps.len())
            .filter(|step| definition.steps[*step].compensation.is_some())
            .map(|step| (step, Direction::Compensation));
        requests
            .chain(undoings)
            .flat_map(of_step)
            .filter(|timer| Some(*timer) != self.timer)
    }

    fn perform(&mut self, commands: Vec<Command>, trouble: Trouble) {
        for command in commands {
            match command {
                Command::Send {
                    step, direction, ..
                } => {
                    self.send(Message::Ask { step, direction }, trouble);
                }
                Command::SetTimer {
                    step,
                    direction,
                    attempt,
                    ..
                } => {
                    self.timer = Some(Pending {
                        step,
                        direction,
                        attempt,
                    });
                }
                Command::CancelTimer => self.timer = None,
                Command::Finished { .. } | Command::Parked { .. } => {}
            }
        }
    }

    fn put_aside(&mut self, message: Message) {
        self.waiting.remove(&message);
        self.past.insert(message);
    }

    /// Where any message may arrive at any time, being under way and being past are the same.
    fn send(&mut self, message: Message, trouble: Trouble) {
        match trouble {
            Trouble::Unlimited => self.past.insert(message),
            Trouble::Faults(_) => self.waiting.insert(message),
        };
    }
}
