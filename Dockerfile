# The app alone: built without C, and run as nobody in an image that holds it and the certificates of public authorities,
# which sslmode=verify-full needs.
FROM golang:1.26 AS build
WORKDIR /penny
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /pennyapp ./pennyapp

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /pennyapp /pennyapp
# Without DATABASE_URL the app keeps its books in a file, in a folder that it may write to.
WORKDIR /home/nonroot
ENV PORT=8080
EXPOSE 8080
ENTRYPOINT ["/pennyapp"]
