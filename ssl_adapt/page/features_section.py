"""What the network's features are worth: a map of the images, their neighbours, and the classes that are confused."""

from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.progress_bar import show_progress
from ssl_adapt.page.page_section import PageSection
from ssl_adapt.runs.run_record import RunRecord


def features_section(run: RunRecord) -> PageSection:
    """The section; where the network or the images are missing, one sentence that says what to do."""
    try:
        with show_progress() as begin:
            begin("importing torch", None)
            from ssl_adapt.page.feature_content import create_content  # here, so that the terminal shows what it does

            values, figures = create_content(run, begin)
    except (UserError, OSError) as error:
        return PageSection("features", "Features", {"problem": missing_sentence(run, error)})
    return PageSection("features", "Features", {"problem": "", **values}, figures)


def missing_sentence(run: RunRecord, error: Exception) -> str:
    """Why there is nothing to see, and what to do."""
    return f"Not shown: {str(error).rstrip('.')}. After that, type: ssl-adapt report run={run.folder}"
