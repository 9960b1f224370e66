"""The file `.env`: no line that may ask for TLS is lost in silence, wherever it stands."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from app.connector import program
from app.settings import origin_of_settings, use_env_file
from clients.options import Environment
from tests.unit.test_settings import load, problems_of

with_dotenv = {"RUN_MODE": None}
BEFORE = "MQTT_QOS=1\n"


@pytest.fixture
def dotenv(tmp_path, monkeypatch):
    """Return what writes `.env`, as it is given."""
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / ".env").write_text(text, newline="")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize(
    ("opened", "lost", "closed"),
    [
        ('MQTT_USER_NAME="7d20', "KAFKA_TLS=true", '# a name of 5"'),
        ("GREETING='hi", "KAFKA_TLS=true", "# of the brokers'"),
        ('MQTT_USER_NAME="7d20', "KAFKA_TLS=true", 'MQTT_USER_PASSWORD=7d20e5anary"'),
        ('export A="7d20', "export KAFKA_TLS=true", '"'),
        ('A = "7d20', "  KAFKA_TLS = true", '"'),
        ('A="7d20', "\tkafka_tls=true", '"'),
        ('A="7d20', "'KAFKA_TLS'=true", '"'),
        ('A="7d20', "KAFKA_TLS=", '"'),
        ('A="7d20', "7d20 KAFKA_TLS=true", '"'),
        ('A="7d20', "ANYTHING=7d20", '"'),
        ('A="7d20', "lower.case-name = 7d20", '"'),
        ('A="7d20\\"', "KAFKA_TLS=true", 'B="'),
        ("\ufeffA='7d20", "KAFKA_TLS=true", "'"),
    ],
)
def test_a_quote_that_is_closed_behind_other_variables_is_refused(opened, lost, closed, end, dotenv):
    """TLS was off without a word, and passwords crossed in clear text."""
    dotenv(end.join(["MQTT_QOS=1", "", opened, lost, closed, "WEB_PORT=6066", ""]))
    said = problems_of(**with_dotenv)[0]
    if opened.startswith("\ufeff"):
        assert said.startswith(".env: line 3 has no name of a variable before its =")
    else:
        assert said.startswith(
            ".env: the quote in line 3 is closed in line 5, and line 4 within it looks like a variable"
        )
    assert "7d20" not in said


@pytest.mark.parametrize(
    "value",
    ["first\nsecond", "-----BEGIN X-----\nMIIabc/+\nQyEfgab=\nQyEfg==\n-----END X-----\n", "a\n= b", "a\n3=4\n: x=1"],
)
def test_a_value_of_several_lines_without_a_variable_in_them_is_taken(value, dotenv):
    dotenv(f"{BEFORE}MQTT_USER_PASSWORD='{value}'\nKAFKA_TLS=true\n")
    settings = load(**with_dotenv)
    assert settings.mqtt_user_password.get_secret_value() == value
    assert settings.kafka_tls


@pytest.mark.parametrize(
    "line", ['A="x\\nKAFKA_TLS=true"', "A='x KAFKA_TLS=true'", "A=x # KAFKA_TLS=true", "A=x=1 B=2"]
)
def test_what_is_quoted_in_one_line_and_comments_are_taken(line, dotenv):
    dotenv(f"{BEFORE}{line}\n# KAFKA_TLS=true\n")
    assert not load(**with_dotenv).kafka_tls


@pytest.mark.parametrize(
    "line", ["A=7d20 KAFKA_TLS=true", "A= KAFKA_TLS=true", "A=x\tkafka-tls = true", "A=x export KAFKA_TLS=1"]
)
def test_a_setting_behind_another_value_is_refused(line, dotenv):
    dotenv(f"{BEFORE}{line}\n")
    said = problems_of(**with_dotenv)[0]
    assert said.startswith(".env: line 2 has KAFKA_TLS= behind the = of another variable")
    assert "7d20" not in said


@pytest.mark.parametrize("sign", "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", ids=ascii)
@pytest.mark.parametrize("before", ["# 7d20", "A=7d20", 'A="7d20"'])
def test_what_looks_like_the_end_of_a_line_and_is_none_is_refused(before, sign, dotenv):
    """An editor shows the setting in a line of its own."""
    dotenv(f"{BEFORE}{before}{sign}KAFKA_TLS=true\n")
    said = problems_of(**with_dotenv)[0]
    assert said.startswith(".env: line 2 ")
    assert "7d20" not in said


@pytest.mark.parametrize(
    "second", ["KAFKA_TLS=", "KAFKA_TLS=false", "export KAFKA_TLS=0", "'KAFKA_TLS' = no", "KAFKA_TLS= # true"]
)
def test_a_setting_that_is_set_twice_to_different_values_is_refused_with_both_lines(second, dotenv):
    dotenv(f"KAFKA_TLS=true\n\n# x\n{second}\n")
    assert problems_of(**with_dotenv)[0] == ".env: KAFKA_TLS is set twice, in line 1 and line 4, to different values"
    dotenv(f"{second}\n\nKAFKA_TLS=true\n")
    assert problems_of(**with_dotenv)[0] == ".env: KAFKA_TLS is set twice, in line 1 and line 3, to different values"


def test_what_is_set_twice_to_the_same_value_or_is_none_of_ours_is_taken(dotenv):
    dotenv("KAFKA_TLS=true\nA=1\nA=2\nexport KAFKA_TLS='true'\n")
    assert load(**with_dotenv).kafka_tls
    dotenv("MQTT_USER_PASSWORD_FILE=/7d20\nMQTT_USER_PASSWORD_FILE=/7d21\n")
    assert "MQTT_USER_PASSWORD_FILE is set twice, in line 1 and line 2" in problems_of(**with_dotenv)[0]


def test_an_empty_variable_of_the_environment_is_an_unset_one_and_leaves_what_dotenv_sets(
    dotenv, tmp_path, monkeypatch
):
    """Compose writes `${KAFKA_TLS}` so; it beat `.env` and was then dropped itself."""
    (tmp_path / "secret").write_text("from-a-file\n")
    dotenv(
        "KAFKA_TLS=true\nREPLAY_MAX_IN_FLIGHT=77\nMQTT_USER_PASSWORD_FILE=secret\nRECORD_KEY={1}\nMQTT_CLIENT_ID=x\n"
    )
    names = (
        "KAFKA_TLS",
        "REPLAY_MAX_IN_FLIGHT",
        "INVOKE_MAX_GOROUTINE",
        "MQTT_USER_PASSWORD",
        "MQTT_USER_PASSWORD_FILE",
    )
    settings = load(RUN_MODE="", MQTT_CLIENT_ID="", **dict.fromkeys(names, ""))
    assert settings.kafka_tls
    assert settings.invoke_max_goroutine == 77
    assert settings.mqtt_user_password.get_secret_value() == "from-a-file"
    assert (settings.record_key.text, settings.mqtt_client_id) == ("{1}", "x")
    assert not load(RUN_MODE=None, RECORD_KEY="").record_key.text, "for the key, empty has a meaning"
    assert "KAFKA_TLS: must be true or false" in problems_of(RUN_MODE=None, KAFKA_TLS=" ")[0]
    monkeypatch.setenv("MQTT_CLIENT_ID", "")
    assert Environment().get("MQTT_CLIENT_ID") == "x"


@pytest.mark.parametrize("name", ["KAFKATLS", "kafkaTls", "KAFKA__TLS", "Kafka-TLS", "_KAFKA_TLS"])
def test_a_setting_with_other_signs_between_its_words_is_named_as_one_that_is_ignored(name, dotenv):
    dotenv(f"{name}=true\n")
    assert load(**with_dotenv).unknown_names == (name,)


# ---- a file that is named


def test_a_named_file_is_read_in_the_place_of_dotenv_and_the_environment_beats_it(dotenv, tmp_path):
    """A service and the commands beside it read the same file, whatever their working directory and RUN_MODE are."""
    dotenv("MQTT_QOS=0\n")
    path = tmp_path / "connector.env"
    path.write_text("RUN_MODE=PRODUCTION\nMQTT_QOS=2\nMQTT_CLIENT_ID=from-file\nMQTT_USER_NAME='a # b'\n")
    for run_mode in (None, "DEVELOP", "PRODUCTION"):
        settings = load(RUN_MODE=run_mode, MQTT_CLIENT_ID=None, CONNECTOR_ENV_FILE=str(path))
        assert (settings.mqtt_qos, settings.mqtt_client_id) == (2, "from-file")
        assert settings.mqtt_user_name == "a # b"
    assert load(CONNECTOR_ENV_FILE=str(path), MQTT_QOS="1").mqtt_qos == 1
    assert load(CONNECTOR_ENV_FILE="").mqtt_qos == 1, "empty counts as unset"


def test_a_named_file_that_is_not_there_or_may_not_be_read_is_an_error_that_says_whose_it_must_be(tmp_path):
    """Else a command beside a service would only say that everything is missing."""
    (problem,) = problems_of(CONNECTOR_ENV_FILE=str(tmp_path / "gone.env"), MQTT_CLIENT_ID=None)
    assert problem == (
        f"CONNECTOR_ENV_FILE: '{tmp_path}/gone.env': cannot be read (No such file or directory); is the path right, "
        "and may this user read it? Beside a service, be the service's user"
    )
    (problem,) = problems_of(CONNECTOR_ENV_FILE=str(tmp_path))
    assert problem.endswith("must be a regular file")


@pytest.mark.parametrize("path", ["conector.env", "/ect/connector.env", "a\n.env"])
def test_a_path_that_was_typed_on_the_command_line_is_shown_with_the_name_of_the_option(path, tmp_path, monkeypatch):
    """Everybody sees a command line; that of the variable may be a secret in the wrong place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONNECTOR_ENV_FILE", "")
    (problem,) = problems_of(CONNECTOR_ENV_FILE=path, MQTT_CLIENT_ID=None)
    assert problem.startswith("CONNECTOR_ENV_FILE: the path is not shown")
    use_env_file(path)
    (problem,) = problems_of(CONNECTOR_ENV_FILE=path, MQTT_CLIENT_ID=None)
    assert problem.startswith(f"--env-file: {path!r}: cannot be read (No such file or directory)")
    assert "CONNECTOR_ENV_FILE" not in problem


def test_no_line_of_a_named_file_is_lost_and_it_names_no_further_file(tmp_path):
    path = tmp_path / "connector.env"
    path.write_text("MQTT_QOS=1\nKAFKA_TLS\n")
    (problem,) = problems_of(CONNECTOR_ENV_FILE=str(path))
    assert problem.startswith(f"CONNECTOR_ENV_FILE: '{path}': line 2 is no NAME=VALUE")
    path.write_text("CONNECTOR_ENV_FILE=/etc/other.env\n")
    (problem,) = problems_of(CONNECTOR_ENV_FILE=str(path))
    assert problem.startswith(f"CONNECTOR_ENV_FILE: '{path}': sets CONNECTOR_ENV_FILE, which no file can")


def test_everybody_may_not_write_to_a_named_file(tmp_path):
    path = tmp_path / "connector.env"
    path.write_text("MQTT_QOS=1\n")
    path.chmod(0o646)
    (problem,) = problems_of(CONNECTOR_ENV_FILE=str(path))
    assert "everybody on this host may write to it" in problem


# ---- a path that is empty, as that of a variable is which a script has not set


@pytest.mark.parametrize("words", [["--env-file", ""], ["--env-file="]])
def test_the_option_with_an_empty_path_is_refused(words):
    """No file was read then, its KAFKA_TLS neither, without a word."""
    done = CliRunner().invoke(program, [*words, "check", "--offline"])
    assert done.exit_code == 2
    assert "Invalid value for '--env-file': must be the path of a file, and it is empty" in done.output


def test_the_log_says_where_the_settings_come_from(dotenv, tmp_path, monkeypatch):
    """An empty variable counts as unset, as everywhere: so it must be seen that no file was read."""
    monkeypatch.delenv("CONNECTOR_ENV_FILE", raising=False)
    monkeypatch.setenv("RUN_MODE", "PRODUCTION")
    dotenv("MQTT_QOS=0\n")
    assert origin_of_settings() == "the environment alone"
    monkeypatch.setenv("CONNECTOR_ENV_FILE", "")
    assert origin_of_settings() == "the environment alone (CONNECTOR_ENV_FILE is empty, which counts as unset)"
    monkeypatch.setenv("RUN_MODE", "DEVELOP")
    assert origin_of_settings().startswith("the environment and .env of the working directory (CONNECTOR_ENV_FILE is ")
    (tmp_path / ".env").unlink()
    assert origin_of_settings().startswith("the environment alone (")
    monkeypatch.setenv("CONNECTOR_ENV_FILE", "/etc/connector.env")
    assert origin_of_settings() == "the environment and '/etc/connector.env'"
