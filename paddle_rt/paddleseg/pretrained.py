"""Downloads of pretrained weights."""

from paddle_rt.errors import UserError


def download(address: str) -> str:
    """Fetch pretrained weights of PaddleSeg's model zoo, once, and return the path of the .pdparams file.

    Raises:
        UserError: The address cannot be reached, or what it gives is damaged.
    """
    import requests
    from paddleseg.utils.utils import download_pretrained_model

    try:
        return download_pretrained_model(address)
    except (requests.RequestException, RuntimeError, OSError, AssertionError, EOFError) as error:
        raise UserError(
            f"cannot download {address} ({type(error).__name__}); fetch it by hand and set model.pretrained to the "
            "file, or to null to start from random weights"
        ) from error
