//! `[docker]`.

use super::Build;
use crate::config::model::Docker;
use crate::config::raw::{self, At};
use crate::config::values;

impl Build<'_, '_, '_> {
    pub(super) fn docker(&mut self, raw: &raw::Docker) -> Docker {
        let socket = raw.socket.as_ref();
        let socket = socket.and_then(|at| self.text("socket", at, values::socket_path));
        let mut name = |key, at: &Option<At<String>>| {
            let at = at.as_ref()?;
            self.text(key, at, |text| match text {
                "" => Err("it is empty; leave it out for any".to_owned()),
                text => Ok(text.to_owned()),
            })
        };
        let (project, network) = (name("project", &raw.project), name("network", &raw.network));
        let default = Docker::default();
        Docker {
            socket: socket.unwrap_or(default.socket),
            project,
            network,
        }
    }
}
