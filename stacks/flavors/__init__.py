"""The stack component flavors that this project brings along, by name; imports none of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OwnFlavor:
    """One of our flavors.

    Attributes:
        component_type: The type of stack component it implements.
        name: What stack files call it.
        source: Where its flavor class stands.
        requires: Packages beyond ZenML's own that it cannot work without.
        extra: The extra of pyproject.toml that has them; empty if they are always installed.
    """

    component_type: str
    name: str
    source: str
    requires: tuple[str, ...] = ()
    extra: str = ""


OWN_FLAVORS = (
    OwnFlavor(
        "data_validator", "gx", "stacks.flavors.gx.GXDataValidatorFlavor", ("great_expectations",)
    ),
    OwnFlavor("model_deployer", "bento", "stacks.flavors.bento.BentoDeployerFlavor", ("bentoml",)),
    OwnFlavor(
        "model_deployer",
        "sagemaker_bento",
        "stacks.flavors.sagemaker_bento.SagemakerBentoFlavor",
        ("bentoml", "boto3", "s3fs"),
        "aws",
    ),
    OwnFlavor("alerter", "webhook", "stacks.flavors.webhook.WebhookAlerterFlavor"),
    OwnFlavor("alerter", "email", "stacks.flavors.email.EmailAlerterFlavor"),
    OwnFlavor("step_operator", "launcher", "stacks.flavors.launcher.LauncherFlavor"),
    OwnFlavor(
        "orchestrator",
        "sagemaker_sized",
        "stacks.flavors.sagemaker.SizedOrchestratorFlavor",
        ("boto3", "sagemaker"),
        "aws",
    ),
    OwnFlavor(
        "step_operator",
        "sagemaker_sized",
        "stacks.flavors.sagemaker.SizedStepOperatorFlavor",
        ("boto3", "sagemaker"),
        "aws",
    ),
    OwnFlavor(
        "image_builder", "codebuild", "stacks.flavors.codebuild.CodeBuildFlavor", ("boto3",), "aws"
    ),
)


def own_flavor(component_type: str, name: str) -> OwnFlavor | None:
    """Return our flavor of this type and name, or None where it is not ours."""
    for flavor in OWN_FLAVORS:
        if (flavor.component_type, flavor.name) == (component_type, name):
            return flavor
    return None
