# The app alone: built without C, and run as an ordinary user. The image has no other programs; it has the certificates of
# public authorities, which sslmode=verify-full needs.
FROM golang:1.26 AS build
WORKDIR /penny
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /pennyapp ./pennyapp

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /pennyapp /pennyapp
# Without DATABASE_URL the app keeps its books in a file, in this folder.
WORKDIR /home/nonroot
ENV PORT=8080
EXPOSE 8080
# The image has no shell and no curl: the app asks itself.
HEALTHCHECK --interval=10s --timeout=3s CMD ["/pennyapp", "-check"]
ENTRYPOINT ["/pennyapp"]
