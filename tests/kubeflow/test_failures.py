"""The errors when Kubeflow Pipelines cannot be reached, refuses a request, or has a problem."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import warnings

import pytest

from cxr.cli import main
from support.kubeflow_server import KubeflowServer
from support.loopback import free_port

ARGUMENTS = ("--arguments", "{data_md5: abc.dir}")
CREATES = "POST /apis/v2beta1/"


@pytest.fixture
def status(capsys):
    """Run `cxr kubeflow status`; returns exit status and standard error, which is never a traceback."""

    def run(*arguments):
        exit_status = main.main(["kubeflow", "status", *map(str, arguments)])
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return exit_status, err

    return run


@pytest.fixture
def submit(capsys, package):
    def run(*arguments):
        exit_status = main.main(["kubeflow", "submit", "--package", str(package), *ARGUMENTS, *map(str, arguments)])
        return exit_status, capsys.readouterr().err

    return run


def test_a_missing_host_is_reported(monkeypatch, status):
    monkeypatch.delenv("KFP_HOST", raising=False)
    exit_status, err = status()
    assert exit_status == 2
    assert "received host=null and no KFP_HOST" in err and "port-forward" in err


@pytest.mark.parametrize(
    ("host", "part"),
    [
        ("kubeflow.example.org", "starts with http:// or https://"),
        ("https://user:secret@example.org", "without user and password"),
        ("https://example.org/#/pipelines", "without the part from #"),
        ("http://127.0.0.1:8888/apis/v2beta1", "without /apis"),
    ],
)
def test_a_wrong_address_is_reported_from_flag_and_variable(monkeypatch, status, host, part):
    exit_status, err = status("--host", host)
    assert exit_status == 2 and part in err
    monkeypatch.setenv("KFP_HOST", host)
    exit_status, err = status()
    assert exit_status == 2 and part in err and "KFP_HOST" in err


def test_a_port_without_a_server_is_reported(status):
    exit_status, err = status("--host", f"http://127.0.0.1:{free_port()}")
    assert exit_status == 1
    assert "nothing listens there" in err and "KFP_HOST" in err


def test_an_unknown_host_name_is_reported(status):
    exit_status, err = status("--host", "http://kubeflow.invalid")
    assert exit_status == 1
    assert "the host name 'kubeflow.invalid' is unknown" in err


def test_a_server_that_does_not_respond_is_reported_after_the_timeout(server, status):
    server.fail("hang")
    exit_status, err = status("--timeout", "1")
    assert exit_status == 1
    assert "no response within timeout=1 s" in err
    assert len(server.requests) == 1, "a timeout is not retried"


def test_a_missing_and_a_wrong_token_are_reported(server, status, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "wrong")
    exit_status, err = status()
    assert exit_status == 1
    assert "does not accept the token (401: Request header error" in err
    assert "set a valid token in the environment variable KFP_TOKEN" in err
    monkeypatch.delenv("KFP_TOKEN")
    exit_status, err = status("--token_variable", "MINE")
    assert exit_status == 1
    assert "requires a token and received none (401" in err and "variable MINE" in err
    monkeypatch.setenv("MINE", "two words")
    exit_status, err = status("--token_variable", "MINE")
    assert exit_status == 1 and "one token without spaces" in err and "two words" not in err


def test_a_token_file_is_read_for_each_request_and_wins_over_the_variable(server, status, monkeypatch, tmp_path):
    monkeypatch.setenv("KFP_TOKEN", "wrong")
    file = tmp_path / "token"
    exit_status, err = status("--token_file", file)
    assert exit_status == 1 and f"token_file={file} (No such file or directory)" in err
    file.write_text("\n")
    exit_status, err = status("--token_file", file)
    assert exit_status == 1 and "which is empty" in err
    file.write_text("right\n")
    respond = server.respond

    def renew(*arguments):
        server.token = "renewed"
        file.write_text("renewed")
        return respond(*arguments)

    monkeypatch.setattr(server, "respond", renew)
    assert status("--token_file", file)[0] == 0


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        (403, "this token has no permission for it (403: fault 403)"),
        (404, "it does not exist (404: fault 404); check kubeflow.host"),
        (400, "it refuses (400: fault 400)"),
        (302, "it redirects (302) to a login page"),
        ("page", "the response is a page"),
    ],
)
def test_a_permanent_failure_is_reported_without_a_retry(server, status, fault, part):
    server.fail(fault)
    exit_status, err = status()
    assert exit_status == 1
    assert part in err and server.url in err
    assert len(server.requests) == 1


def test_a_wrong_path_is_reported(server, status):
    exit_status, err = status("--host", f"{server.url}/kubeflow")
    assert exit_status == 1 and "(404: Not Found); check kubeflow.host" in err


def test_a_taken_name_that_cannot_be_found_is_reported(server, submit):
    server.fail(409, on=f"{CREATES}experiments")
    exit_status, err = submit()
    assert exit_status == 1
    assert "the name is taken (409: fault 409); choose another one" in err


def test_a_temporary_failure_is_retried(server, submit, caplog):
    server.fail(500, times=2, on="upload_version")
    server.fail(429, times=1, on=f"{CREATES}runs")
    exit_status, err = submit()
    assert exit_status == 0, err
    assert caplog.text.count("trying again in") == 3
    assert len(server.store.runs) == 1


PROTO = "Failed to create a new run.: InternalServerError: Failed to create a workflow: proto:\u00a0(line 1:9): "


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (f"{CREATES}runs", "proto: invalid value for string field args: 0.00001"),
        (f"{CREATES}runs", PROTO + 200 * "component " + "invalid value for string field args: 0.00001"),
        (
            f"{CREATES}runs",
            "Failed to create a new run.: InternalServerError: InvalidInputError: unknown template format",
        ),
        ("upload_version", "Failed to create a pipeline version: failed to parse the pipeline: args: 0.00001"),
        ("upload_version", "json: cannot unmarshal number into Go struct field .args of type string"),
    ],
)
def test_a_failure_about_the_content_of_the_package_is_final(server, submit, caplog, on, message):
    server.fail(500, times=9, on=on, message=message)
    exit_status, err = submit()
    assert exit_status == 1
    assert f"the server refuses the package (500: {message[-300:]}); correct what the message names" in err
    assert "trying again" not in caplog.text and "has a problem" not in err
    assert len([request for request in server.requests if on in request]) == 1


def test_a_failure_to_show_a_run_is_temporary_whatever_its_text_is(server, status, caplog):
    server.fail(500, times=1, on="GET /apis/v2beta1/experiments", message="failed to parse the filter")
    assert status()[0] == 0
    assert "trying again" in caplog.text


def test_a_lasting_failure_is_reported_after_four_tries(server, status):
    server.fail(503, times=100)
    exit_status, err = status()
    assert exit_status == 1
    assert "the server has a problem (503: fault 503); look at the log of the deployment ml-pipeline" in err
    assert len(server.requests) == 4


def test_a_read_is_retried_when_the_connection_breaks(server, status):
    server.fail("cut", times=2)
    assert status()[0] == 0


def test_a_change_is_not_sent_again_when_the_connection_breaks(server, submit):
    server.fail("cut", on=f"{CREATES}runs", after=True)
    exit_status, err = submit()
    assert exit_status == 1
    assert "the connection broke" in err and "start the run" in err
    assert "it may have been done all the same: look with `cxr kubeflow status`" in err
    assert len(server.store.runs) == 1, "a second request would have started a second run"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1; returns the files of certificate and key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hospital")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"


def test_an_unknown_certificate_is_reported_and_a_trusted_one_accepted(certificate, status, tmp_path):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with KubeflowServer(tls=tls) as server:
        exit_status, err = status("--host", server.url)
        assert exit_status == 1
        assert "its certificate is not accepted by the usual authorities" in err
        assert "name your authority's file in kubeflow.ca_file" in err
        assert status("--host", server.url, "--ca_file", certificate[0])[0] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert status("--host", server.url, "--verify_certificates", "false")[0] == 0
        exit_status, err = status("--host", server.url, "--ca_file", tmp_path / "none.pem")
        assert exit_status == 2 and "none.pem" in err
        (tmp_path / "bad.pem").write_text("no certificate")
        exit_status, err = status("--host", server.url, "--ca_file", tmp_path / "bad.pem")
        assert exit_status == 1 and "bad.pem" in err


def test_https_to_a_server_without_tls_is_reported(server, status):
    exit_status, err = status("--host", server.url.replace("http://", "https://"))
    assert exit_status == 1 and "does not speak TLS" in err and "write http://" in err


def test_kfp_s_own_client_works_with_the_server_of_these_tests(server, package):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kfp

        client = kfp.Client(host=server.url, existing_token="right")
    assert client.get_kfp_healthz().multi_user is False
    pipeline = client.upload_pipeline(str(package), pipeline_name="cxr-training")
    version = client.upload_pipeline_version(str(package), "second", pipeline_name="cxr-training")
    assert version.pipeline_id == pipeline.pipeline_id == client.get_pipeline_id("cxr-training")
    experiment = client.create_experiment("trial", namespace=None)
    reference = {"pipeline_id": pipeline.pipeline_id, "version_id": version.pipeline_version_id}
    run = client.run_pipeline(experiment.experiment_id, "one", params={"data_md5": "a"}, **reference)
    server.on_look = lambda looked_up: looked_up.update(state="SUCCEEDED")
    assert client.wait_for_run_completion(run.run_id, 5, 1).state == "SUCCEEDED"
    job = client.create_recurring_run(experiment.experiment_id, "weekly", cron_expression="0 0 2 * * 1", **reference)
    client.delete_recurring_run(job.recurring_run_id)
    assert client.list_recurring_runs().recurring_runs == []


@pytest.mark.parametrize(
    ("kind", "body", "part"),
    [
        ("runs", {"display_name": "a", "colour": "red"}, "unknown field 'colour'"),
        ("runs", {"display_name": 3}, "runs.display_name: expected str"),
        ("runs", {"display_name": "a", "runtime_config": {"parameters": []}}, "parameters: expected dict"),
        ("recurringruns", {"display_name": "a", "mode": "ON"}, "expected one of"),
        ("recurringruns", {"display_name": "a", "no_catchup": "true"}, "no_catchup: expected bool"),
    ],
)
def test_the_server_of_these_tests_refuses_unknown_fields_and_wrong_types(server, kind, body, part):
    import requests

    headers = {"Authorization": "Bearer right"}
    response = requests.post(f"{server.url}/apis/v2beta1/{kind}", json=body, headers=headers, timeout=10)
    assert response.status_code == 400
    assert part in response.json()["message"]
