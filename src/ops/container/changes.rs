//! `commit --change`: Dockerfile instructions that change an image's config and nothing else.

use std::collections::BTreeMap;

use super::Error;
use crate::build::ast::{Command, HealthcheckInstruction, Instruction};
use crate::build::expand::Lex;
use crate::oci::{ContainerConfig, Healthcheck};

/// Apply one instruction, such as `CMD ["nginx"]` or `ENV A=1`.
///
/// # Errors
/// [`Error::Change`]
pub fn apply(config: &mut ContainerConfig, text: &str) -> Result<(), Error> {
    let refuse = |why: String| Error::Change { text: text.into(), why };
    let file = format!("FROM scratch\n{text}\n");
    let parsed = crate::build::parse(file.as_bytes(), "--change")
        .map_err(|errors| refuse(errors.first().map_or_else(String::new, |error| error.message.clone())))?;
    let [stage] = parsed.stages.as_slice() else { return Err(refuse("FROM is not allowed here".into())) };
    for instruction in &stage.instructions {
        instruct(config, &instruction.value).map_err(refuse)?;
    }
    Ok(())
}

fn instruct(config: &mut ContainerConfig, instruction: &Instruction) -> Result<(), String> {
    let lex = Lex::new('\\');
    let environment: BTreeMap<String, String> = config
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    let word = |text: &str| lex.process_word(text, &environment).map_err(|error| error.to_string());
    let words = |text: &str| lex.process_words(text, &environment).map_err(|error| error.to_string());
    match instruction {
        Instruction::Env(pairs) => {
            for (key, value) in pairs {
                config.set_env(&word(key)?, &word(value)?);
            }
        }
        Instruction::Label(pairs) => {
            for (key, value) in pairs {
                config.labels.insert(word(key)?, word(value)?);
            }
        }
        Instruction::Workdir(dir) => config.working_dir = working_dir(&config.working_dir, &word(dir)?),
        Instruction::User(user) => config.user = word(user)?,
        Instruction::Expose(ports) => {
            for port in ports {
                for port in words(port)? {
                    let keys = super::values::exposed_ports(&port).map_err(|error| error.to_string())?;
                    config.exposed_ports.extend(keys.into_iter().map(|key| (key, Default::default())));
                }
            }
        }
        Instruction::Volume(paths) => {
            for path in paths {
                config.volumes.insert(word(path)?, Default::default());
            }
        }
        Instruction::Cmd(command) => config.cmd = Some(arguments(config, command)),
        Instruction::Entrypoint(command) => config.entrypoint = Some(arguments(config, command)),
        Instruction::Shell(shell) => config.shell = Some(shell.clone()),
        Instruction::StopSignal(signal) => {
            let signal = word(signal)?;
            crate::runtime::signal::number(&signal).map_err(|error| error.to_string())?;
            config.stop_signal = Some(signal);
        }
        Instruction::Healthcheck(check) => config.healthcheck = Some(healthcheck(check)),
        Instruction::OnBuild(trigger) => config.on_build.push(trigger.clone()),
        other => return Err(format!("{} is not allowed here", other.keyword())),
    }
    Ok(())
}

fn arguments(config: &ContainerConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(arguments) => arguments.clone(),
        Command::Shell(text) => {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut all = config.shell.clone().unwrap_or_else(default);
            all.push(text.clone());
            all
        }
    }
}

fn working_dir(current: &str, dir: &str) -> String {
    let joined = if dir.starts_with('/') { dir.to_owned() } else { format!("/{current}/{dir}") };
    super::mounts::clean_target(&joined).unwrap_or_else(|| "/".into())
}

fn healthcheck(check: &HealthcheckInstruction) -> Healthcheck {
    match check {
        HealthcheckInstruction::None => Healthcheck { test: vec!["NONE".into()], ..Default::default() },
        HealthcheckInstruction::Cmd { command, interval, timeout, start_period, start_interval, retries } => {
            let test = match command {
                Command::Exec(arguments) => {
                    std::iter::once("CMD".to_owned()).chain(arguments.iter().cloned()).collect()
                }
                Command::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
            };
            Healthcheck {
                test,
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: *retries,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let mut config = ContainerConfig { env: vec!["A=1".into()], ..Default::default() };
        for text in [
            r#"CMD ["nginx", "-g"]"#,
            "ENTRYPOINT exec top",
            "ENV B=$A/x A=2",
            "LABEL k=\"a b\"",
            "WORKDIR /srv",
            "workdir sub/../x",
            "USER www",
            "EXPOSE 80 90/udp",
            "VOLUME /data",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=5s CMD true",
            "ONBUILD RUN x",
            r#"SHELL ["/bin/bash", "-c"]"#,
        ] {
            apply(&mut config, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        assert_eq!(config.cmd.unwrap(), ["nginx", "-g"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec top"]);
        assert_eq!(config.env, ["A=2", "B=1/x"]);
        assert_eq!(config.labels["k"], "a b");
        assert_eq!(config.working_dir, "/srv/x");
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp"]);
        assert_eq!(config.healthcheck.unwrap().interval, 5_000_000_000);
        for bad in ["RUN x", "COPY a b", "FROM x", "CMDD x", "STOPSIGNAL odd", "EXPOSE x", ""] {
            let result = apply(&mut ContainerConfig::default(), bad);
            assert!(result.is_err() || bad.is_empty(), "{bad}");
        }
    }
}
