//! When the next request is due: at once, or at its place in a fixed rate.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::Failure;

/// One for all connections: whichever is free takes the next arrival, however late that has become.
pub(crate) struct Pace {
    fixed: Option<Fixed>,
}

struct Fixed {
    due: RefCell<VecDeque<Instant>>,
    waiting: Semaphore,
}

impl Pace {
    /// `rate` in requests a second; without one each connection asks again as soon as it has its answer.
    pub(crate) fn start(rate: Option<f64>) -> Result<Rc<Self>, Failure> {
        let Some(rate) = rate else {
            return Ok(Rc::new(Self { fixed: None }));
        };
        if !(1.0..1e7).contains(&rate) {
            return Err("--rate is out of range".into());
        }
        let pace = Rc::new(Self {
            fixed: Some(Fixed {
                due: RefCell::default(),
                waiting: Semaphore::new(0),
            }),
        });
        // tokio's timers know whole milliseconds: a rate would become bursts.
        #[allow(
            deprecated,
            reason = "its successor is unsafe; this owns the descriptor, which is what that is about"
        )]
        let timer = AsyncFd::new(timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?)?;
        tokio::task::spawn_local(arrive(
            Rc::clone(&pace),
            timer,
            Duration::from_secs_f64(1.0 / rate),
        ));
        Ok(pace)
    }

    /// The time at which the request should have been sent, from which its latency counts.
    pub(crate) async fn next(&self) -> Instant {
        let Some(fixed) = &self.fixed else {
            return Instant::now();
        };
        if let Ok(permit) = fixed.waiting.acquire().await {
            permit.forget();
        }
        let due = fixed.due.borrow_mut().pop_front();
        due.unwrap_or_else(Instant::now)
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// How many arrivals no connection has taken yet.
    pub(crate) fn backlog(&self) -> usize {
        self.fixed.as_ref().map_or(0, |fixed| fixed.due.borrow().len())
    }
}

async fn arrive(pace: Rc<Pace>, timer: AsyncFd<OwnedFd>, every: Duration) {
    let Some(fixed) = &pace.fixed else { return };
    let start = Instant::now();
    let mut next = start + every;
    loop {
        let now = Instant::now();
        while next <= now {
            fixed.due.borrow_mut().push_back(next);
            fixed.waiting.add_permits(1);
            next += every;
        }
        let left = next
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            },
        };
        if timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            return;
        }
        let Ok(mut guard) = timer.readable().await else {
            return;
        };
        let _ = guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
    }
}
