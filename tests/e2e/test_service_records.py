"""ZenML's records of services: one each, complete before the service starts, removed with it."""

import json

from tests.support.commands import assert_codes, python, run_all
from tests.support.project import Project

#: Deployers whose services are never started; their records are real.
_DEPLOYERS = """
import json
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4
from zenml.client import Client
from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.traffic import Traffic
from cv_factory.errors import StackError
from registry import deployments
from cv_factory.deployment.local.endpoint import LocalEndpoint
from stacks.flavors.bento import BentoDeployer

class StartlessEndpoint(LocalEndpoint):
    def deploy(self, name, bundle, *, keep=(), is_new=True):
        StartlessDeployer.on_deploy()

class StartlessDeployer(BentoDeployer):
    on_deploy = staticmethod(lambda: None)

    def endpoint(self, model_name, port=None):
        return StartlessEndpoint(Path(self.local_path) / model_name, "127.0.0.1", 3000)

def made(kind):
    deployer = deployments.active_deployer()
    deployer.__class__ = kind
    return deployer

def deploy(deployer, model, version):
    predictor = SimpleNamespace(fingerprint="f")
    bundle = SimpleNamespace(model_name=model, version=str(version), predictor=predictor)
    return deployer.deploy(bundle)
"""
_MANY = f"""{_DEPLOYERS}
deployer = made(StartlessDeployer)
for version in range(22):
    deploy(deployer, "digits", version)
deploy(deployer, "digits-2", 1)
services = deployer.services("digits")
print(json.dumps([service.config.model_version for service in services]))
"""
_LISTED_MEANWHILE = f"""{_DEPLOYERS}
def list_services():
    deployer.find_model_server()
    assert deployments.deployed_bundle("cats") is None

deployer = made(StartlessDeployer)
StartlessDeployer.on_deploy = staticmethod(list_services)
service = deploy(deployer, "cats", 1)
assert Client().get_service(service.uuid).admin_state == "active"
"""
_NOT_RECORDED = f"""{_DEPLOYERS}
class ForgetfulDeployer(StartlessDeployer):
    def _record(self, service, state):
        if state == "active":
            raise StackError("ZenML is gone")
        return super()._record(service, state)

    def perform_delete_model(self, service, timeout=300, force=False):
        print("taken down")

deployer = made(ForgetfulDeployer)
try:
    deploy(deployer, "dogs", 1)
except StackError:
    print(len(deployer.services("dogs")), "left")
"""
_NOT_STAGED = f"""{_DEPLOYERS}
class FakeDeployer:
    deployed = []

    def services(self, model_name):
        return self.deployed

    def check_settings(self, model_name, settings):
        pass

    def traffic(self, model_name):
        return Traffic({{}})

    def deploy(self, bundle, port):
        self.deployed = [SimpleNamespace(
            uuid=uuid4(), service_name="v1", client_url="sagemaker://birds", is_running=True
        )]
        return self.deployed[0]

    def service_endpoint(self, service):
        return self

    def set_stage(self, name, stage):
        raise StackError("permission is missing for sagemaker:AddTags")

    def remove(self, service):
        print("deleted")

bundle = SimpleNamespace(
    model_name="birds", version="1", predictor=SimpleNamespace(fingerprint="f")
)
deployer, deployments.active_deployer = FakeDeployer(), lambda: deployer
try:
    deployments.deploy(bundle, EndpointConfig(), "Ann", "why")
except StackError as error:
    print(error)
"""


def test_service_records_are_complete_and_removed_with_their_services(project: Project) -> None:
    sources = (_MANY, _LISTED_MEANWHILE, _NOT_RECORDED, _NOT_STAGED)
    done = run_all(project, *(python(source) for source in sources))
    assert_codes(done, 0, 0, 0, 0)
    many, _, not_recorded, not_staged = (d.output.splitlines() for d in done)
    assert json.loads(many[-1]) == [str(version) for version in reversed(range(22))], (
        "more than a page of ZenML's, the newest first"
    )
    assert not_recorded[-2:] == ["taken down", "0 left"]
    assert not_staged[-2:] == ["deleted", "permission is missing for sagemaker:AddTags"]
