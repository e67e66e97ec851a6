"""The page of `cascade app` as a Hugging Face Space."""

from cascade.app.page import serve
from cascade.app.settings import AppSettings

if __name__ == "__main__":
    serve(AppSettings(host="0.0.0.0"))
