# The page on a CPU:  docker build -t synth . && docker run --rm -p 7860:7860 synth
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY synth synth
COPY evaluation evaluation
COPY pipelines pipelines
COPY configs configs
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch \
    --extra-index-url https://pypi.org/simple \
 && pip install --no-cache-dir -c constraints.txt '.[demo,dicom]' \
 && useradd --create-home synth
USER synth
EXPOSE 7860
ENTRYPOINT ["synth", "demo"]
CMD ["brain-tiny", "--host", "0.0.0.0"]
